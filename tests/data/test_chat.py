"""Conversations in JSON lines: what is learned, how rows are packed, and files that are refused."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.data import open_source
from hippodrome.data._packed import IGNORED, Document, PackedRows, collate, pack
from hippodrome.data.base import Task
from hippodrome.mixers.attention import Attention
from hippodrome.mixers.mamba import Mamba
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.models.language import LanguageModel
from hippodrome.shapes import TokenBatch
from hippodrome.text import plain
from hippodrome.text.folder import byte_words, carry, decode, read

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def talk(*said: str, **more: Any) -> dict[str, Any]:
    """A conversation in turns."""
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    return {"messages": turns, **more}


def written(path: Path, lines: list[Any]) -> Path:
    """A file of JSON lines, with an empty one in it."""
    path.write_text("\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer folder with special tokens and a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["user assistant hello what is the time of day"] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    path = tmp_path_factory.mktemp("words")
    tokenizer.save(str(path / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "<|im_end|>", "chat_template": CHATML}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "config.json").write_text(json.dumps({"eos_token_id": 1}))
    return path


def documents(task: Task) -> list[tuple[list[int], list[int]]]:
    """Tokens and learned targets of every document of a task, cut out of its rows at the resets."""
    found = []
    for part in (task.train, task.valid, task.test):
        for i in range(len(part)):  # type: ignore[arg-type]
            row = part[i]
            starts = [*row.resets.nonzero()[:, 0].tolist(), len(row.tokens)]
            for a, b in pairwise(starts):
                if (row.targets[a:b] != IGNORED).any():
                    targets = row.targets[a:b].tolist()
                    found.append((row.tokens[a:b].tolist(), [t for t in targets if t != IGNORED]))
    return found


def test_what_the_assistant_says_is_learned_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    lines = [
        talk("what is the time?", "Noon — midi 🕛.", "hello", "day"),
        {"prompt": "the time of", "completion": " day"},
        {"text": "hello day"},
        talk("hello", "the end"),
    ]
    path = written(tmp_path / "chat.jsonl", lines)
    task = open_source(path, tokenizer=str(folder), length=64)
    words = read(folder)
    assert words is not None
    learned = {decode(words, targets, special=True) for _, targets in documents(task)}
    assert learned == {
        "Noon — midi 🕛.<|im_end|>\nday<|im_end|>\n",
        " day</s>",
        "hello day</s>",
        "the end<|im_end|>\n",
    }
    starts = {decode(words, tokens, special=True)[:7] for tokens, _ in documents(task)}
    assert starts == {"<|im_st", "<s>the ", "<s>hell"}
    assert task.details["documents"] == {"train": 2, "valid": 1, "test": 1}
    assert sum(task.details["learned"].values()) == sum(len(t) for _, t in documents(task))
    assert task.words is not None
    assert task.words.template.source == CHATML  # type: ignore[union-attr]
    assert task.details["template"] == "the tokenizer's"
    every = open_source(path, tokenizer=str(folder), length=64, learn="all")
    assert "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nthe end<|im_end|>\n" in {
        decode(words, [tokens[0], *targets], special=True) for tokens, targets in documents(every)
    }


def test_spaces_that_a_tokenizer_leaves_out_of_its_offsets_are_learned(tmp_path: Path) -> None:
    """That of GPT-NeoX, which Mamba's checkpoints have, says that a token of a space has no letters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    said = "if a:\n    b  =  é \n"
    lines = [{"prompt": f" {i}  ", "completion": said} for i in range(3)]
    task = open_source(written(tmp_path / "chat.jsonl", lines), length=80, tokenizer=str(tmp_path))
    assert {tokenizer.decode(targets) for _, targets in documents(task)} == {f"{said}\0"}


def test_shares_that_leave_nothing_to_train_on_are_made_smaller(folder: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "chat.jsonl", [talk("hello", "day")] * 4)
    task = open_source(path, tokenizer=str(folder), length=64, valid=0.49)
    assert task.details["documents"] == {"train": 2, "valid": 1, "test": 1}


def test_a_tokenizer_without_a_template_takes_the_plain_one(tmp_path: Path) -> None:
    path = written(tmp_path / "chat.jsonl", [talk(f"Héllo {i}", f"Wörld {i} ") for i in range(4)])
    task = open_source(path, length=80)
    assert task.facts == {"vocab_size": 256, "bytes_per_token": 1.0}
    assert task.details["template"] == "plain"
    texts = {bytes([*tokens, targets[-1]]).decode() for tokens, targets in documents(task)}
    assert texts == {f"user:\nHéllo {i}\0\nassistant:\nWörld {i}\0\n" for i in range(4)}
    assert {bytes(t).decode() for _, t in documents(task)} == {f"Wörld {i}\0\n" for i in range(4)}
    # What is left in the folder of a run lays out the same chat.
    assert task.tokenizer is not None
    task.tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert task.words is not None
    carry(task.words, None, tmp_path)
    again = read(tmp_path, 256)
    assert again is not None
    assert again.ends == (0,)
    assert again.template.render(talk("Hi")["messages"]) == "user:\nHi\0\nassistant:\n"  # type: ignore[union-attr]
    second = open_source(path, length=80, tokenizer=str(tmp_path / "tokenizer.json"))
    assert documents(second) == documents(task)


def test_a_template_of_ones_own_and_a_vocabulary_that_is_learned(tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}")
    path = written(tmp_path / "chat.jsonl", [talk(f"hello hello {i}", "hello") for i in range(4)])
    task = open_source(path, length=80, tokenizer=260, template=str(own), learn="all")
    assert task.facts["vocab_size"] == 260
    assert task.words is not None
    tokens, learned = documents(task)[0]
    assert decode(task.words, tokens).startswith("[user]hello hello")
    assert learned[-1] == task.words.ends[0], "the token that ends a text, and not the letters of its name"


def test_plain_text_with_a_separator_is_packed(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("===\n".join(f"hello number {i}\n" for i in range(9)) + "===\n  \n")
    task = open_source(path, tokenizer=str(folder), length=40, separator="===\n")
    words = read(folder)
    assert words is not None
    texts = sorted(decode(words, targets, special=True) for _, targets in documents(task))
    assert texts == [f"hello number {i}\n</s>" for i in range(9)]
    assert {tokens[0] for tokens, _ in documents(task)} == {0}
    assert task.details["separator"] == "===\n"
    whole = open_source(path, tokenizer=str(folder), length=8)
    assert whole.facts["vocab_size"] == 290
    assert whole.train[0].tokens.shape == (8,)


def test_packed_rows_train_as_the_documents_one_by_one() -> None:
    """Loss and gradients of rows with several documents are those of each document on its own."""
    torch.manual_seed(0)
    blocks = [
        Block(mixer, None)
        for mixer in (
            Mamba(8, d_state=4),
            Mamba2(8, d_state=4, head_dim=4, chunk=4),
            Attention(8, heads=2),
            Attention(8, heads=2, window=3),
        )
    ]
    model = LanguageModel(Stack(blocks), 20).double()
    draw = np.random.default_rng(0)
    given = [
        Document(draw.integers(20, size=n).astype(np.int32), draw.random(n) < 0.6)
        for n in (5, 9, 14, 2, 7, 3, 12, 4, 3)
    ]
    data = PackedRows(given, 13)
    assert max(len(row) for row in data.rows) > 2
    batch = collate([data[i] for i in range(len(data))])
    loss = model.loss(batch)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    total, count = torch.zeros((), dtype=torch.float64), 0
    for one in given:
        ids = torch.from_numpy(one.ids).long()[None]
        asked = torch.from_numpy(one.learned)[None, 1:]
        if asked.any():
            targets = torch.where(asked, ids[:, 1:], IGNORED)
            total = total + model.loss(TokenBatch(ids[:, :-1], targets)) * asked.sum()
            count += int(asked.sum())
    apart = total / count
    apart.backward()
    assert abs(loss - apart) <= 1e-9 * abs(apart)
    largest = max(p.grad.abs().max() for p in model.parameters())
    for name, p in model.named_parameters():
        assert (p.grad - gradients[name]).abs().max() <= 1e-9 * largest, name
    # The marks are what keeps them apart.
    assert abs(model.loss(batch._replace(resets=None)) - apart) > 1e-3


def test_a_document_longer_than_a_row_is_cut_and_loses_nothing() -> None:
    ids = np.arange(1, 24, dtype=np.int32)
    data = PackedRows([Document(ids, np.ones(23, bool))], 8)
    rows = sorted((data[i] for i in range(len(data))), key=lambda row: int(row.tokens[0]))
    asked = [row.targets[row.targets != IGNORED].tolist() for row in rows]
    assert sum(asked, []) == list(range(2, 24))  # noqa: RUF017
    assert all(row.resets[0] for row in rows)
    assert rows[-1].resets.sum() == 2, "what is left of a row is apart too"


def test_packing_wastes_little_and_splits_nothing() -> None:
    draw = np.random.default_rng(1)
    sizes = draw.integers(1, 129, size=500).tolist()
    rows = pack(sizes, 128)
    assert sorted(number for row in rows for number in row) == list(range(500))
    assert all(sum(sizes[i] for i in row) <= 128 for row in rows)
    assert len(rows) <= 1.03 * sum(sizes) / 128 + 1
    assert pack([], 8) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"messages": [', r"line 2: expected a JSON object"),
        ("[1, 2]", r"line 2: expected an object such as"),
        ('{"messages": "hello"}', r"line 2: messages are a list"),
        ('{"messages": [{"content": "x"}]}', r"line 2: messages are a list of objects with a role"),
        ('{"messages": [{"role": "user"}]}', r"line 2: the chat template does not work on these messages"),
        ('{"messages": [{"role": "user", "content": "x"}]}', r"line 2: nothing is said by the assistant"),
        ('{"prompt": "x"}', r"line 2: a prompt and its completion are texts"),
        ('{"conversations": []}', r"line 2: a line is .*; got the keys 'conversations'"),
        ('{"text": 5}', r"line 2: a line is"),
        ('{"text": "half \\ud83d a letter"}', r"line 2: expected a JSON object in UTF-8.*surrogates not"),
    ],
)
def test_a_line_that_does_not_fit_is_told_by_number(
    folder: Path, tmp_path: Path, line: str, said: str
) -> None:
    path = written(tmp_path / "chat.jsonl", [talk("hello", "day")])
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=said):
        open_source(path, tokenizer=str(folder))


def test_options_that_cannot_be_meant_are_refused(folder: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "chat.jsonl", [talk("hello", "day")] * 3)
    for given, said in (
        ({"learn": "user"}, "'assistant' or 'all'"),
        ({"template": "nowhere.jinja"}, "'nowhere.jinja' cannot be read"),
        ({"length": 0}, "length 0"),
        ({"valid": 0.7}, "below a half"),
        ({"tokenizer": "nowhere"}, "none of these"),
        ({"separator": "x"}, "no option 'separator'"),
    ):
        with pytest.raises(ValueError, match=said):
            open_source(path, **{"tokenizer": str(folder), **given})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="3 documents or more"):
        open_source(written(tmp_path / "two.jsonl", [talk("hello", "day")] * 2))


def test_letters_may_be_written_as_pairs_of_halves(tmp_path: Path) -> None:
    path = written(tmp_path / "chat.jsonl", [talk("hello", "day")] * 3)
    path.write_text(path.read_text() + '{"text": "a \\uD83D\\uDD5B"}\n')
    assert open_source(path).details["lines"] == 4


def test_a_text_too_short_for_three_parts_is_told(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("ab")
    with pytest.raises(ValueError, match="more than 4 tokens to train on"):
        open_source(path, tokenizer=str(folder), length=4)


def test_logs_in_json_lines_stay_a_text(tmp_path: Path) -> None:
    path = written(tmp_path / "log.jsonl", [{"level": "info", "n": i} for i in range(400)])
    assert "separator" not in open_source(path, length=16).details
    assert open_source(path, length=16).details["split"].startswith("90/5/5")


def test_the_end_of_a_text_is_its_own_token_or_the_byte_0() -> None:
    from hippodrome.data.text import byte_tokenizer

    words = byte_words(byte_tokenizer())
    assert plain.with_ends(words).ends == (0,)
    assert plain.with_ends(words._replace(ends=(7,))).ends == (7,)
    bare = byte_words(Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")))
    with pytest.raises(ValueError, match="names no token that ends"):
        plain.with_ends(bare._replace(tokenizer=Tokenizer(models.BPE())))
