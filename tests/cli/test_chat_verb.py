"""`hippodrome chat`: turns, commands, files of conversations, and Ctrl-C, in process and as a process."""

import os
import shutil
import signal
import subprocess
import sys
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


def test_ctrl_c_stops_an_answer_and_not_the_program(folder: Path, tmp_path: Path) -> None:
    """A process of its own: interrupted while it answers, it takes the next line and ends well."""
    code = "from hippodrome.cli import main; main()"
    words = [sys.executable, "-c", code, "chat", str(folder), "--tokens", "1000000", "--seed", "1"]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"Go on and on\n")
    process.stdin.flush()
    assert os.read(process.stdout.fileno(), 1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(b"/stats\n/save talk\n/quit\n", timeout=120)
    assert process.returncode == 0, told
    assert b"(stopped)" in told
    assert b"wrote" in told
    assert (tmp_path / "talk").exists()
    assert b"Traceback" not in told
