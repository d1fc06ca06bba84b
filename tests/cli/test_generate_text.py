"""`hippodrome generate` of text: batches, stops, constraints, states, messages, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from hippodrome.cli import _text

WORDS = ("--tokens", 12, "--seed", 3)


def texts(answer) -> list[dict]:
    assert answer.code == 0, answer.err
    found = answer.json()
    return found.get("texts", [found])


def test_several_prompts_are_each_what_they_are_alone(cli, language_run: Path, tmp_path: Path) -> None:
    together = texts(
        cli("generate", language_run, *WORDS, "--prompt", "The ", "--prompt", "A quick fox", "--json")
    )
    assert [text["prompt"] for text in together] == ["The ", "A quick fox"]
    for i, text in enumerate(together):
        words = ("--tokens", 12, "--seed", 3 + i, "--prompt", text["prompt"], "--json")
        assert texts(cli("generate", language_run, *words)) == [text]
    (tmp_path / "prompts.txt").write_text("The \n\nA quick fox\n", encoding="utf-8")
    filed = cli("generate", language_run, *WORDS, "--prompts", tmp_path / "prompts.txt", "--json")
    assert texts(filed) == together
    shown = cli("generate", language_run, *WORDS, "--prompts", tmp_path / "prompts.txt").out
    assert shown == "".join(f"== {i} ==\n{t['prompt']}{t['text']}\n" for i, t in enumerate(together, 1))


def test_several_texts_for_a_prompt(cli, language_run: Path) -> None:
    found = texts(cli("generate", language_run, *WORDS, "--prompt", "The ", "--n", 3, "--json"))
    assert [text["prompt"] for text in found] == ["The "] * 3
    assert len({text["text"] for text in found}) == 3
    assert all(text["tokens"] == 12 and text["finish_reason"] == "length" for text in found)


def test_a_text_ends_before_a_stop(cli, language_run: Path) -> None:
    words = ("generate", language_run, *WORDS, "--prompt", "The ", "--json")
    (whole,) = texts(cli(*words))
    stop = next(c for c in whole["text"][2:] if c != "\ufffd")
    (cut,) = texts(cli(*words, "--stop", "never there", "--stop", stop))
    assert cut["text"] == whole["text"][: whole["text"].index(stop)]
    assert cut["finish_reason"] == "stop"


def test_constraints(cli, language_run: Path, tmp_path: Path) -> None:
    words = ("generate", language_run, "--tokens", 90, "--prompt", "x", "--json")
    for text in texts(cli(*words, "--regex", "[a-f]{3}(é|è)?-[0-9]{2}", "--n", 2)):
        assert re.fullmatch("[a-f]{3}(é|è)?-[0-9]{2}", text["text"])
        assert text["finish_reason"] == "stop"
    schema = {
        "type": "object",
        "properties": {"n": {"enum": [1, 20]}, "s": {"type": "string", "maxLength": 5}},
        "required": ["n", "s"],
        "additionalProperties": False,
    }
    (tmp_path / "s.json").write_text(json.dumps(schema))
    (text,) = texts(cli(*words, "--json-schema", tmp_path / "s.json"))
    found = json.loads(text["text"])
    assert found["n"] in (1, 20)
    assert len(found["s"]) <= 5


def test_a_state_goes_on_as_if_it_had_not_been_put_down(cli, language_run: Path, tmp_path: Path) -> None:
    words = ("generate", language_run, "--frequency-penalty", 2, "--json")
    (whole,) = texts(cli(*words, "--prompt", "The quick", "--tokens", 20, "--seed", 5, "--logprobs", 0))
    file = tmp_path / "a.state"
    (first,) = texts(
        cli(
            *words, "--prompt", "The quick", "--tokens", 8, "--seed", 5, "--save-state", file, "--logprobs", 0
        )
    )
    (rest,) = texts(cli(*words, "--state", file, "--tokens", 12, "--logprobs", 0))
    assert [t["id"] for t in first["logprobs"] + rest["logprobs"]] == [t["id"] for t in whole["logprobs"]]
    again = tmp_path / "b.state"
    (second,) = texts(cli(*words, "--state", file, "--tokens", 5, "--save-state", again, "--logprobs", 0))
    (third,) = texts(cli(*words, "--state", again, "--tokens", 7, "--logprobs", 0))
    parts = second["logprobs"] + third["logprobs"]
    assert [t["id"] for t in parts] == [t["id"] for t in rest["logprobs"]]
    more = cli("generate", language_run, "--state", file, "--prompt", " and", "--tokens", 3, "--json")
    assert texts(more)[0]["prompt"].endswith(" and")


def test_a_state_of_another_model_is_refused(
    cli, language_run: Path, tmp_path: Path, text_file: Path
) -> None:
    file = tmp_path / "a.state"
    cli("generate", language_run, "--prompt", "The", "--tokens", 2, "--save-state", file)
    other = tmp_path / "other"
    small = ("--model", "min_gru", "--width", "16", "--depth", "1", "--budget", "1steps", "--device", "cpu")
    assert cli("train", text_file, "--out", other, *small, "-s", "data.length=32").code == 0
    answer = cli("generate", other, "--state", file, "--tokens", 2)
    assert answer.code == 2
    assert "of another model" in answer.err
    assert answer.err.count("\n") == 1
    file.write_bytes(file.read_bytes()[:-9])
    assert "cut off" in cli("generate", language_run, "--state", file, "--tokens", 2).err


def test_log_probabilities(cli, language_run: Path) -> None:
    words = ("generate", language_run, "--tokens", 3, "--temperature", 0, "--prompt", "The ", "--json")
    (found,) = texts(cli(*words, "--logprobs", 2))
    assert len(found["logprobs"]) == 3
    for token in found["logprobs"]:
        assert token["top"][0]["id"] == token["id"]  # the likeliest was taken
        assert token["logprob"] == token["top"][0]["logprob"] < 0
        assert token["top"][1]["logprob"] <= token["logprob"]
    (plain, other) = texts(cli(*words, "--logprobs", 2, "--n", 2))
    assert plain["logprobs"] == other["logprobs"]
    for one, same in zip(plain["logprobs"], found["logprobs"], strict=True):
        assert one["id"] == same["id"]
        assert one["logprob"] == pytest.approx(same["logprob"], rel=1e-5)


def test_a_message_goes_through_the_template(cli, language_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(language_run, copy)
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    (copy / "chat_template.jinja").write_text(template)
    words = ("--tokens", 12, "--seed", 3)
    laid_out = texts(cli("generate", copy, *words, "--prompt", "<system>Brief!<user>Hi<assistant>", "--json"))
    chat = texts(cli("generate", copy, *words, "--chat", "--system", "Brief!", "--prompt", "Hi", "--json"))
    assert chat[0]["text"] == laid_out[0]["text"]
    assert cli("generate", copy, *words, "--chat", "--prompt", "Hi").out.startswith("Hi") is False


def test_a_model_without_a_tokenizer_takes_one(cli, language_run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(language_run, bare, ignore=shutil.ignore_patterns("tokenizer.json"))
    words = ("--prompt", "The ", "--tokens", 5, "--seed", 1)
    refused = cli("generate", bare, *words)
    assert refused.code == 2
    assert "--tokenizer" in refused.err
    given = cli("generate", bare, *words, "--tokenizer", language_run)
    assert given.out == cli("generate", language_run, *words).out


def test_precision_threads_and_pace(cli, language_run: Path) -> None:
    import torch

    before = torch.get_num_threads()
    for dtype in ("float32", "bfloat16", "int8"):
        words = ("--dtype", dtype, "--threads", 1, "--stats", "--prompt", "The ", "--tokens", 20)
        answer = cli("generate", language_run, *words)
        assert answer.code == 0, answer.err
        assert re.search(r"read 4 tokens in .* wrote 20 tokens in .* a second after the first", answer.err)
    assert torch.get_num_threads() == before
    answer = cli("generate", language_run, "--stats", "--prompt", "a", "--n", 2, "--tokens", 3)
    assert re.search(r"read 2 tokens and wrote 6 tokens in .* of 2 texts together", answer.err)


def test_beams_find_a_text_at_least_as_likely_as_the_greedy_one(cli, language_run: Path) -> None:
    words = ("generate", language_run, "--tokens", 6, "--prompt", "The ", "--json")
    (greedy,) = texts(cli(*words, "--temperature", 0, "--logprobs", 0))
    likely = sum(token["logprob"] for token in greedy["logprobs"]) / 6
    (one,) = texts(cli(*words, "--beams", 1))
    assert one["text"] == greedy["text"]
    assert one["score"] == pytest.approx(likely, rel=1e-4)
    found = texts(cli(*words, "--beams", 4, "--n", 3))
    assert found[0]["score"] >= found[1]["score"] >= found[2]["score"]
    assert found[0]["score"] >= likely - 1e-6
    shown = cli(*words[:-1], "--beams", 4, "--prompt", "A")
    assert shown.out.startswith(f"== 1 ==\nThe {found[0]['text']}\n== 2 ==\nA")


def test_what_beams_find_goes_on_in_the_prompt(cli, language_run: Path, tmp_path: Path) -> None:
    """A tokenizer of words that drops the space at the beginning of a text, as those of Llama do."""
    copy = tmp_path / "run"
    shutil.copytree(language_run, copy)
    tokenizer = Tokenizer(models.WordLevel({f"▁w{i}": i for i in range(100)}, "▁w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.save(str(copy / "tokenizer.json"))
    words = ("generate", copy, "--tokens", 4, "--prompt", "w3 w4", "--json")
    (greedy,) = texts(cli(*words, "--temperature", 0))
    (found,) = texts(cli(*words, "--beams", 1))
    # Of the 256 tokens that the model has this tokenizer knows 100.
    assert re.fullmatch(r"( w\d\d?){4}", found["text"])
    assert found["text"] == greedy["text"]


def test_what_cannot_be_is_told_before_anything_is_shown(cli, language_run: Path, tmp_path: Path) -> None:
    words = ("generate", language_run, "--prompt", "The ", "--tokens", 3)
    nowhere = tmp_path / "none" / "a.state"
    for more, said in (
        (("--stop", ""), "stop string"),
        (("--top-p", 2), "top_p is above 0"),
        (("--save-state", tmp_path), "is a folder"),
        (("--save-state", nowhere), "is in no folder that is there"),
    ):
        answer = cli(*words, *more)
        assert (answer.code, answer.out) == (2, "")
        assert said in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prompt", "a", "--beams", "2", "--n", "3"), "finds no more than 2"),
        (("--prompt", "a", "--beams", "2", "--top-k", "3"), "--top-k has no say"),
        (("--prompt", "a", "--beams", "2", "--stop", "x"), "--stop has no say"),
        (("--prompt", "", "--beams", "2"), "prompt is empty"),
        (("--prompt", "a", "--prompts", "f"), "both name prompts"),
        (("--prompt", "a", "--regex", "a", "--json-schema", "f"), "both say what the text is"),
        (("--prompt", "a", "--logprobs", "1"), "told with --json"),
        (("--prompt", "a", "--system", "s"), "one of --chat"),
        (("--prompt", "a", "--n", "2", "--save-state", "f"), "--save-state is of one text"),
        (("--prompt", "a", "--prompt", "b", "--state", "f"), "--state is of one text"),
        (("--chat", "--state", "f"), "hippodrome chat"),
        (("--prompt", "a", "--chat"), "chat template"),
        (("--prompt", ""), "prompt is empty"),
        (("--prompt", "a", "--regex", "(a"), "unclosed group"),
        (("--prompt", "a", "--stop", ""), "stop string"),
        (("--prompt", "a", "--top-p", "2"), "top_p is above 0"),
        (("--prompt", "a", "--dtype", "int3"), "int3"),
        (("--prompts", "none.txt"), "none.txt"),
        (("--state", "none.state"), "none.state"),
        (("--prompt", "a", "--json-schema", "none.json"), "none.json"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_line(
    cli, language_run: Path, words: tuple, said: str
) -> None:
    answer = cli("generate", language_run, *words)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.startswith("Error: ")
    assert answer.err.count("\n") == 1


def test_files_that_are_no_text_are_named(cli, language_run: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"ab\xe4c")
    (tmp_path / "half").write_text("{")
    (tmp_path / "deep").write_text("[" * 100_000)
    (tmp_path / "none").write_text("\n \n")
    for option, name, said in (
        ("--prompts", "raw", "raw is no text in UTF-8"),
        ("--json-schema", "raw", "raw is no text in UTF-8"),
        ("--json-schema", "half", "half is no JSON"),
        ("--json-schema", "deep", "deep is no JSON"),
        ("--prompts", "none", "no line has any text"),
    ):
        more = () if option == "--prompts" else ("--prompt", "a")
        answer = cli("generate", language_run, option, tmp_path / name, *more)
        assert answer.code == 2
        assert said in answer.err
    for words, stdin in ((("--prompt", "a\udcff"), None), ((), b"a\xff")):
        answer = cli("generate", language_run, *words, stdin=stdin)
        assert answer.code == 2
        assert "UTF-8" in answer.err


def test_letters_that_command_a_terminal_are_marked_there(monkeypatch, capsys) -> None:
    from hippodrome.cli import _opened

    monkeypatch.setattr(_opened.sys.stdout, "isatty", lambda: True, raising=False)
    _opened.show("a\x1b[2J\tb\n\x9bé")
    assert capsys.readouterr().out == "a\ufffd[2J\tb\n\ufffdé"


def test_pace_leaves_the_first_tokens_apart() -> None:
    marks = [0.0, *(10.0 + i for i in range(20))]
    assert _text._pace(20, marks) == "20 tokens in 29.00 s (0.7 a second); 1.0 a second after the first 8"
