"""Text: windows that cover, offsets that repeat, tokenizers that give the text back, faults by name."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hippodrome.data import open_source
from hippodrome.data.text import (
    IGNORED,
    ContiguousWindows,
    RandomWindows,
    byte_tokenizer,
    encode,
    is_bytes,
    token_bytes,
    train_tokenizer,
)
from hippodrome.train.batches import Share, Shuffled, loader

TEXT = "To be, or not to be: that is the question.\nÉtudes, naïve ☃ 数\n" * 40


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hamlet.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.mark.parametrize("length", [1, 3, 7, 19, 20, 100])
def test_contiguous_windows_predict_every_token_but_the_first_once(length: int) -> None:
    tokens = np.arange(20, dtype=np.uint8)
    windows = ContiguousWindows(tokens, length)
    targets = torch.cat([windows[i].targets for i in range(len(windows))])
    inputs = torch.cat([windows[i].tokens for i in range(len(windows))])
    seen = targets != IGNORED
    assert targets[seen].tolist() == list(range(1, 20))
    assert inputs[seen].tolist() == list(range(19))
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_random_windows_are_pieces_of_the_text_and_the_same_on_every_visit() -> None:
    tokens = np.arange(200, dtype=np.uint8)
    one, two = RandomWindows(tokens, 9, seed=3), RandomWindows(tokens, 9, seed=3)
    starts = []
    for i in (0, 1, 2, 50, len(one) - 1):
        item = one[i]
        starts.append(int(item.tokens[0]))
        assert item.tokens.tolist() == list(range(starts[-1], starts[-1] + 9))
        assert item.targets.tolist() == list(range(starts[-1] + 1, starts[-1] + 10))
        assert torch.equal(two[i].tokens, item.tokens)
    assert len(set(starts)) > 3
    assert {int(one[i].tokens[0]) for i in range(4000)} == set(range(191))
    other = RandomWindows(tokens, 9, seed=4)
    assert [int(other[i].tokens[0]) for i in range(20)] != [int(one[i].tokens[0]) for i in range(20)]


def test_a_loader_resumes_in_mid_epoch_with_the_same_batches(file: Path) -> None:
    task = open_source(file, length=16)

    def batches(position: int) -> Iterator:
        order = Shuffled(len(task.train), 4, 1, position, Share())
        return iter(loader(task.train, order, task.collate, workers=0, pin=False))

    first = batches(0)
    for _ in range(5):
        next(first)
    resumed = batches(5 * 4)
    for _ in range(3):
        assert torch.equal(next(resumed).tokens, next(first).tokens)


def test_byte_tokenizer_is_the_bytes(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    every = "".join(map(chr, range(0x24F))) + TEXT[:100]
    assert tokenizer.encode(every).ids == list(every.encode())
    assert tokenizer.decode(list(every.encode())) == every
    assert encode(tokenizer, every).tolist() == list(every.encode())
    assert is_bytes(tokenizer)
    assert token_bytes(tokenizer).tolist() == [1] * 256
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert is_bytes(type(tokenizer).from_file(str(tmp_path / "tokenizer.json")))


def test_learned_tokenizer_gives_the_text_back_and_knows_its_bytes() -> None:
    tokenizer = train_tokenizer(TEXT, 290)
    assert tokenizer.get_vocab_size() == 290
    ids = encode(tokenizer, TEXT)
    assert tokenizer.decode(ids.tolist()) == TEXT
    assert len(ids) < len(TEXT.encode())
    assert int(token_bytes(tokenizer)[ids].sum()) == len(TEXT.encode())
    assert tokenizer.decode(encode(tokenizer, "☂ never seen").tolist()) == "☂ never seen"


def test_task_of_a_file(file: Path) -> None:
    task = open_source(file, length=32)
    assert (task.kind, task.name) == ("language", "hamlet")
    assert task.facts == {"vocab_size": 256, "bytes_per_token": 1.0}
    tokens = task.details["tokens"]
    assert sum(tokens.values()) == len(TEXT.encode())
    batch = task.collate([task.train[i] for i in range(5)])
    assert batch.tokens.shape == batch.targets.shape == (5, 32)
    assert batch.resets is None
    naive = task.naive()["unigram"]
    assert 0 < naive["nats"] < math.log(256)
    assert naive["bits_per_byte"] == pytest.approx(naive["nats"] / math.log(2))


def test_task_with_a_learned_and_with_a_given_tokenizer(file: Path, tmp_path: Path) -> None:
    task = open_source(file, length=8, tokenizer=280)
    assert task.facts["vocab_size"] == 280 == len(task.facts["bytes_per_token"])
    assert task.tokenizer is not None
    task.tokenizer.save(str(tmp_path / "tokenizer.json"))
    again = open_source(file, length=8, tokenizer=str(tmp_path / "tokenizer.json"))
    assert torch.equal(again.test[0].tokens, task.test[0].tokens)


def test_folder_is_its_files_in_order_without_hidden_and_foreign_ones(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second " * 50)
    (tmp_path / "a.md").write_text("first " * 50)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.py").write_text("third " * 50)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "no.txt").write_text("hidden")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\x00\xff")
    task = open_source(tmp_path, length=4)
    assert task.details["files"] == 3
    assert sum(task.details["bytes"].values()) == 300 + 350 + 300 + 2
    first = bytes(task.train.tokens[:6]).decode()  # type: ignore[attr-defined]
    assert first == "first "


def test_documentation_of_python_needs_no_download() -> None:
    task = open_source("python-docs", length=64)
    assert task.details["tokens"]["train"] > 300_000
    assert 2.5 < task.naive()["unigram"]["nats"] < 3.6


@pytest.mark.data
def test_tiny_shakespeare(data_folder: Path) -> None:
    task = open_source(data_folder / "text" / "tinyshakespeare.txt")
    assert sum(task.details["bytes"].values()) == 1_115_394
    assert task.naive()["unigram"]["nats"] == pytest.approx(3.33, abs=0.05)


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"", {}, r"hamlet.txt: expected a text; got an empty one\. Name a file"),
        (
            b"good\nbad \xff here",
            {},
            r"hamlet.txt, line 2: expected text in UTF-8; got byte 0xff at position 9\.",
        ),
        (b"short", {}, r"more than 256 tokens to train on .* got 4, 0 and 1\. Give a longer text"),
        (b"long " * 99, {"length": 0}, "at least one token; got length 0"),
        (b"long " * 999, {"tokenizer": 12}, "its vocabulary is 256 or more; got 12"),
        (b"long " * 999, {"tokenizer": "no.json"}, "got 'no.json', which is none of these"),
    ],
)
def test_faults(tmp_path: Path, content: bytes, options: dict, words: str) -> None:
    path = tmp_path / "hamlet.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        open_source(path, **options)
    assert "\n" not in str(caught.value)


def test_folder_without_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected text files \(.txt, .* got none"):
        open_source(tmp_path)
