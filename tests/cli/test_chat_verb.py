"""`hippodrome chat`: turns, commands, files of conversations, and Ctrl-C."""

import shutil
import signal
from pathlib import Path

import pytest

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}[/]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def folder(language_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with a chat template beside its tokenizer."""
    copy = tmp_path_factory.mktemp("chat") / "run"
    shutil.copytree(language_run, copy)
    (copy / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return copy


WORDS = ("--tokens", 6, "--seed", 3)


def test_lines_from_a_pipe_are_messages(cli, folder: Path) -> None:
    answer = cli("chat", folder, *WORDS, stdin="Hello\n\nAnd?\n")
    assert answer.code == 0, answer.err
    assert answer.err == ""
    assert answer.out.count("\n") >= 2
    assert cli("chat", folder, *WORDS, stdin="Hello\nAnd?\n/quit\nnever read\n").out == answer.out
    first = cli("generate", folder, "--chat", "--prompt", "Hello", *WORDS, "--temperature", 0.7)
    assert answer.out.startswith(first.out)


def test_a_model_without_a_template_is_told_of(cli, language_run: Path, tmp_path: Path) -> None:
    plain = cli("chat", language_run, *WORDS, stdin="Hello\n")
    assert plain.code == 0
    assert "no chat template" in plain.err
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    given = cli("chat", language_run, *WORDS, "--template", tmp_path / "t.jinja", stdin="Hello\n")
    assert "no chat template" not in given.err
    assert given.code == 0


def test_a_conversation_goes_on_from_its_file(cli, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "talk"
    whole = cli("chat", folder, *WORDS, stdin=f"One\nTwo\n/save {file}\nThree\n/stats\n")
    assert f"{file}: " in whole.err
    assert "were in the state already" in whole.err
    taken = cli("chat", folder, *WORDS, stdin=f"/load {file}\nThree\n")
    assert "4 messages" in taken.err
    assert taken.out
    assert whole.out.endswith(taken.out)
    assert cli("chat", folder, *WORDS, "--load", file, stdin="Three\n").out == taken.out


def test_reset_and_retry(cli, folder: Path) -> None:
    once = cli("chat", folder, "--tokens", 6, "--temperature", 0, stdin="One\n").out
    again = cli("chat", folder, "--tokens", 6, "--temperature", 0, stdin="One\n/retry\n/reset\nOne\n").out
    assert again == 3 * once


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/retry", "no message yet"),
        ("/save", "needs the name of a file"),
        ("/save here", "nothing to save yet"),
        ("/load none", "no file none"),
        ("/save ~nobody-of-this-name/talk", "nothing to save yet"),
        ("/jump", "no command /jump"),
    ],
)
def test_a_line_that_cannot_be_ends_nothing(cli, folder: Path, line: str, said: str) -> None:
    answer = cli("chat", folder, *WORDS, stdin=f"{line}\nHello\n")
    assert answer.code == 0
    assert said in answer.err
    assert answer.out == cli("chat", folder, *WORDS, stdin="Hello\n").out


def test_bytes_that_are_no_letters_end_nothing(cli, folder: Path) -> None:
    answer = cli("chat", folder, *WORDS, stdin=b"One\nTw\xff\nThree\n")
    assert answer.code == 0, answer.err
    assert answer.out == cli("chat", folder, *WORDS, stdin="One\nTw\ufffd\nThree\n").out


def test_where_nobody_reads_any_more_or_nobody_writes(cli, folder: Path, monkeypatch) -> None:
    """Output into `head`, say, and input that was closed."""
    from hippodrome.cli import _text, chat

    def gone(text: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    for verb in (chat, _text):
        monkeypatch.setattr(verb, "show", gone)
    for words in (("chat", folder, *WORDS), ("generate", folder, *WORDS, "--prompt", "a")):
        answer = cli(*words, stdin="One\nTwo\n")
        assert (answer.code, answer.err) == (141, "")
    monkeypatch.setattr(chat.sys, "stdin", None)
    with pytest.raises(ValueError, match="no standard input"):
        chat._Room(None, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no standard input"):
        _text._begins(_text.TextOptions(**dict.fromkeys(_text.TextOptions._fields)))  # type: ignore[arg-type]


def test_what_a_template_refuses_is_told_and_forgotten(cli, folder: Path, tmp_path: Path) -> None:
    strict = "{% if messages[-1].content == 'no' %}{{ raise_exception('not that') }}{% endif %}" + TEMPLATE
    (tmp_path / "t.jinja").write_text(strict)
    words = ("chat", folder, *WORDS, "--template", tmp_path / "t.jinja")
    answer = cli(*words, stdin="no\nHello\n")
    assert "not that" in answer.err
    assert answer.out == cli(*words, stdin="Hello\n").out


def test_a_template_that_is_given_knows_the_special_tokens(cli, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    (copy / "tokenizer_config.json").write_text('{"eos_token": "!"}')
    (tmp_path / "named.jinja").write_text(TEMPLATE.replace("[/]", "{{ eos_token }}"))
    (tmp_path / "spelt.jinja").write_text(TEMPLATE.replace("[/]", "!"))
    answers = [
        cli("chat", copy, *WORDS, "--template", tmp_path / f"{name}.jinja", stdin="One\nTwo\n").out
        for name in ("named", "spelt")
    ]
    assert answers[0] == answers[1] != ""


def test_a_loaded_conversation_has_its_own_first_message(cli, folder: Path) -> None:
    answer = cli("chat", folder, "--system", "Be brief.", "--load", "talk")
    assert answer.code == 2
    assert "leave --system out" in answer.err


def test_what_cannot_chat_is_refused(cli, classify_run: Path) -> None:
    answer = cli("chat", classify_run, stdin="Hello\n")
    assert answer.code == 2
    assert "classification" in answer.err


def test_ctrl_c_stops_an_answer_and_not_the_program(cli, folder: Path, tmp_path: Path, monkeypatch) -> None:
    """Interrupted while it answers it takes the next line; twice before the next token, it ends."""
    from hippodrome.cli import chat

    monkeypatch.chdir(tmp_path)
    shown: list[str] = []

    def show(text: str) -> None:
        shown.append(text)
        for _ in range({3: 1, 5: 2}.get(len(shown), 0)):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(chat, "show", show)
    words = ("chat", folder, "--tokens", 1_000_000, "--seed", 1)
    before = signal.getsignal(signal.SIGINT)
    answer = cli(*words, stdin="Go on and on\n/stats\n/save talk\n/quit\n")
    assert answer.code == 0, answer.err
    assert "(stopped)" in answer.err
    assert "wrote 3 " in answer.err
    assert len(shown) == 3
    assert (tmp_path / "talk").exists()
    answer = cli(*words, stdin="Go on and on\n/save other\n")
    assert answer.code == 130
    assert not (tmp_path / "other").exists()
    assert signal.getsignal(signal.SIGINT) is before
