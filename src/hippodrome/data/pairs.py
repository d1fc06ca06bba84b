"""Pairs of texts that belong together, to train an encoder on: lines of a file, or neighbours in a text."""

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hippodrome.data.base import Task, fault, mixed
from hippodrome.data.documents import reading_of
from hippodrome.data.text import open_text, read_file
from hippodrome.shapes import PairBatch

OTHERS = 15
"""How many wrong candidates a query is compared with in validation and test: guessing is right in 1 of 16."""
LENGTH = 128


class PairItem(NamedTuple):
    """A query (t,), what belongs to it, and what does not, each as token ids."""

    query: Tensor
    candidates: list[Tensor]


class Pairs(Dataset):
    """Pairs by number, each with the partners of ``others`` other pairs, the same on every visit."""

    def __init__(self, pair: Callable[[int], tuple[np.ndarray, np.ndarray]], count: int, others: int) -> None:
        self.pair, self.count, self.others = pair, count, min(others, count - 1)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> PairItem:
        if not 0 <= index < self.count:
            raise IndexError(index)
        query, partner = self.pair(index)
        wrong = []
        if self.others:
            # Distances around the circle of all pairs: none is zero, and none comes twice.
            numbers = np.random.default_rng(mixed(1, index))
            ahead = 1 + numbers.permutation(self.count - 1)[: self.others]
            wrong = [self.pair(int(i))[1] for i in (index + ahead) % self.count]
        rows = [torch.from_numpy(np.asarray(row, dtype=np.int64)) for row in (query, partner, *wrong)]
        return PairItem(rows[0], rows[1:])


class Neighbours:
    """Two stretches of a text that do not overlap, at most a stretch apart: numbered, or drawn by number."""

    def __init__(self, tokens: np.ndarray, length: int, seed: int | None) -> None:
        self.tokens, self.length, self.seed = tokens, length, seed
        self.places = len(tokens) // (3 * length)

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self.seed is None:
            start, gap = 3 * self.length * index, mixed(2, index) % (self.length + 1)
        else:
            start = mixed(self.seed, index) % (len(self.tokens) - 3 * self.length + 1)
            gap = mixed(self.seed + 1, index) % (self.length + 1)
        other = start + self.length + gap
        return self.tokens[start : start + self.length], self.tokens[other : other + self.length]


def collate(items: list[PairItem]) -> PairBatch:
    """Items to a batch; the shorter rows are filled up with token 0, which is not read."""
    pad = torch.nn.utils.rnn.pad_sequence
    rows = [row for item in items for row in item.candidates]
    lengths = torch.tensor([[len(row) for row in item.candidates] for item in items])
    return PairBatch(
        pad([item.query for item in items], batch_first=True),
        torch.tensor([len(item.query) for item in items]),
        pad(rows, batch_first=True).unflatten(0, lengths.shape),
        lengths,
    )


def open_neighbours(
    path: str | Path, *, length: int = LENGTH, tokenizer: str | int = "bytes", seed: int = 0
) -> Task:
    """An encoder's task from a text: find the stretch that stands near another one among 16.

    Both are ``length`` tokens long, and up to as many lie between them, so that no word is cut in two by
    both. The text is read and cut as by ``text.open_text``.

    Args:
        path: a file in UTF-8, or a folder of such files.
        length: tokens of a stretch.
        tokenizer: "bytes", the size of a vocabulary to learn, or the path of a ``tokenizer.json``.
        seed: of the places in training.

    Raises:
        ValueError: what ``open_text`` raises, or a text too short for two pairs in each part.
    """
    task = open_text(path, length=length, tokenizer=tokenizer, seed=seed)
    parts: list[Any] = [task.train, task.valid, task.test]
    train, *held = (part.tokens for part in parts)
    fixed = [Neighbours(tokens, length, None) for tokens in held]
    if min(len(train) // (3 * length), *(part.places for part in fixed)) < 2:
        raise fault(
            path,
            f"{6 * length} tokens or more in each part, of which the last two have 5 % of the text",
            ", ".join(str(len(tokens)) for tokens in (train, *held)),
            "Give a longer text, or a shorter length.",
        )
    sets = [Pairs(part, part.places, OTHERS) for part in fixed]
    details = {**task.details, "pairs": "stretches of the text near each other"}
    return _task(task.name, Pairs(Neighbours(train, length, seed), 2**17, 0), sets, task.tokenizer, details)


def open_pairs(
    path: str | Path, *, length: int = LENGTH, tokenizer: str | int = "bytes", seed: int = 0
) -> Task:
    """An encoder's task from a file of two texts a line with a tab between them: find the second of a first.

    Lines are dealt to the parts by what stands in their first text, 80 % to train, 10 %, 10 %, so that equal
    first texts stay together. Wrong candidates are the second texts of other lines.

    Args:
        path: the file, ``.tsv``.
        length: tokens of a text that are kept, from its start.
        tokenizer: "bytes", "chars", the size of a vocabulary to learn, or the path of a ``tokenizer.json``.
        seed: of the dealing.

    Raises:
        ValueError: a line with another number of columns or an empty one, by its number, or fewer than two
            pairs in a part.
    """
    path = Path(path)
    if length < 1:
        raise ValueError(f"a text keeps one token at least; got length {length}. Take 128, say.")
    lines: list[list[str]] = []
    for number, line in enumerate(read_file(path).splitlines(), 1):
        cells = line.split("\t")
        if line.strip() and (len(cells) != 2 or not all(cell.strip() for cell in cells)):
            raise fault(f"{path}, line {number}", "two texts with a tab", f"{len(cells)}", "Correct it.")
        if line.strip():
            lines.append(cells)
    parts: tuple[list[int], ...] = ([], [], [])
    for i, (first, _) in enumerate(lines):
        share = mixed(seed, zlib.crc32(first.encode())) % 10
        parts[0 if share < 8 else share - 7].append(i)
    if min(map(len, parts)) < 2:
        counts = ", ".join(str(len(part)) for part in parts)
        raise fault(path, "two pairs or more to train, validate and test on", counts, "Give more lines.")
    reading = reading_of(tokenizer, (text for i in parts[0] for text in lines[i]))

    def taken(chosen: Sequence[int]) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
        def pair(index: int) -> tuple[np.ndarray, np.ndarray]:
            first, second = (reading.ids(text)[:length] for text in lines[chosen[index]])
            return first, second

        return pair

    sets = [Pairs(taken(part), len(part), OTHERS) for part in parts[1:]]
    train = Pairs(taken(parts[0]), len(parts[0]), 0)
    sizes = dict(zip(("train", "valid", "test"), map(len, parts), strict=True))
    details = {"source": str(path), "tokenizer": reading.said, "window": length, "pairs": sizes}
    return _task(path.stem, train, sets, reading.tokenizer, details)


def _task(name: str, train: Pairs, held: Sequence[Pairs], tokenizer: Any, details: dict[str, Any]) -> Task:
    others = held[1].others
    return Task(
        kind="encoder",
        name=name,
        train=train,
        valid=held[0],
        test=held[1],
        collate=collate,
        facts={"vocab_size": tokenizer.get_vocab_size()},
        tokenizer=tokenizer,
        details={**details, "candidates": {"valid": held[0].others + 1, "test": others + 1}},
        naive=lambda: {"guessing": {"accuracy": 1 / (others + 1), "nats": float(np.log(others + 1))}},
    )
