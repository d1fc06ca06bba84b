"""Sequences of tokens drawn from a seed, with a question about themselves: the engine of recall tasks.

A task is a function that draws one sequence. Data sets, batches, the rules that learn nothing and the facts
of the report are shared.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from hippodrome.data.base import Task, mixed
from hippodrome.data.text import IGNORED, Window
from hippodrome.shapes import TokenBatch

LOOKED_AT = 2**22
"""Tokens of the test part, at most, that the rules which learn nothing are computed from."""


class Drawn(NamedTuple):
    """One sequence: tokens (t,), and what is to be predicted at each, IGNORED where nothing is.

    ``practice`` are the targets of training where it asks for more than a test does; None for the same.
    """

    tokens: np.ndarray
    targets: np.ndarray
    practice: np.ndarray | None = None


Draw = Callable[[np.random.Generator], Drawn]


class Drawings(Dataset):
    """Sequences drawn from the seed and their number when they are asked for: item i is always the same.

    Args:
        draw: draws one.
        count: how many there are.
        seed: of all of them; parts of one task take different ones.
        practice: whether the targets are those of training.
    """

    def __init__(self, draw: Draw, count: int, seed: int, practice: bool = False) -> None:
        self.draw, self.count, self.seed, self.practice = draw, count, seed, practice

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Window:
        if not 0 <= index < len(self):
            raise IndexError(index)
        drawn = self.draw(np.random.default_rng(mixed(self.seed, index)))
        targets = drawn.practice if self.practice and drawn.practice is not None else drawn.targets
        return Window(torch.from_numpy(drawn.tokens.astype(np.int64)), torch.from_numpy(targets))


class Mixture(Dataset):
    """Several data sets behind one another."""

    def __init__(self, parts: Sequence[Drawings]) -> None:
        self.parts = list(parts)
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Window:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self.ends, index, side="right"))
        return self.parts[part][index - int(self.ends[part]) + len(self.parts[part])]


def collate(items: list[Window]) -> TokenBatch:
    """Windows to a batch (b, t); short ones are filled up at the right with token 0 and nothing asked."""
    shape = len(items), max(len(item.tokens) for item in items)
    tokens, targets = torch.zeros(shape, dtype=torch.int64), torch.full(shape, IGNORED)
    for row, item in enumerate(items):
        tokens[row, : len(item.tokens)], targets[row, : len(item.targets)] = item
    return TokenBatch(tokens, targets)


def asked_at_the_end(tokens: np.ndarray, answer: np.ndarray | int) -> np.ndarray:
    """Targets (t,) of tokens that end in a question: the answer at the last places, nothing before."""
    targets = np.full(len(tokens), IGNORED)
    targets[len(tokens) - np.size(answer) :] = answer
    return targets


def drawn_task(
    name: str,
    draws: Sequence[tuple[Draw, int]],
    seed: int,
    *,
    vocab_size: int,
    answers: range,
    asked: str,
    whole: bool = False,
    details: dict[str, Any] | None = None,
) -> Task:
    """The task of one draw, or of several, with the number of sequences to train on from each.

    Args:
        name: of the source.
        draws: functions that draw one sequence, with how many are trained on; a tenth as many validate, and
            as many test.
        seed: of all sequences.
        vocab_size: number of tokens.
        answers: the tokens that answers are made of.
        asked: what is asked, for the report.
        whole: whether the targets of a row are one answer of several tokens, so that a row is also counted
            as right or wrong as a whole.
        details: more facts for the report.

    Raises:
        ValueError: no sequence to train on.
    """
    for _, count in draws:
        if count < 1:
            raise ValueError(
                f"{name}: at least one sequence to train on is needed; got {count}. Take 5000, say."
            )
    counts = [[count, max(count // 10, 1), max(count // 10, 1)] for _, count in draws]
    parts = [
        [Drawings(draw, size[part], 3 * seed + part, practice=part == 0) for part in range(3)]
        for (draw, _), size in zip(draws, counts, strict=True)
    ]
    train, valid, test = (
        group[0] if len(group) == 1 else Mixture(group) for group in zip(*parts, strict=True)
    )
    steps = [len(group[0][0].tokens) for group in parts]
    names = ("train", "valid", "test")
    about: dict[str, Any] = {
        "source": f"generated, {name}",
        "asked": asked,
        "known best error": {"nats": 0.0},
        "seed": seed,
        "sequences": {part: sum(size[i] for size in counts) for i, part in enumerate(names)},
        "tokens": {
            part: sum(size[i] * t for size, t in zip(counts, steps, strict=True))
            for i, part in enumerate(names)
        },
        "answers": len(answers),
    }
    return Task(
        kind="language",
        name=name,
        train=train,
        valid=valid,
        test=test,
        collate=collate,
        facts={
            "vocab_size": vocab_size,
            "bytes_per_token": None,
            **({"whole_answers": True} if whole else {}),
        },
        tokenizer=None,
        details={**about, **(details or {})},
        naive=lambda: naive(test, answers),
    )


def naive(test: Dataset, answers: range) -> dict[str, dict[str, float]]:
    """All answers alike, and those seen so far by their frequency, the most frequent as the first guess.

    Computed from as many rows of the test set as have ``LOOKED_AT`` tokens.
    """
    shares, firsts, looked_at = [], [], 0
    for i in range(len(test)):  # type: ignore[arg-type]  # every data set here has a length
        if looked_at >= LOOKED_AT:
            break
        tokens, targets = (part.numpy() for part in test[i])
        looked_at += len(tokens)
        counts, read = np.zeros(answers.stop, dtype=np.int64), 0
        for place in np.flatnonzero(targets != IGNORED).tolist():
            past, read = tokens[read : place + 1], place + 1
            past = past[(past >= answers.start) & (past < answers.stop)]
            counts += np.bincount(past, minlength=answers.stop)
            within = counts[answers.start :]
            top = np.flatnonzero(within == within.max()) + answers.start
            seen = within.sum()
            shares.append(counts[targets[place]] / seen if seen else 1 / len(answers))
            firsts.append((targets[place] in top) / len(top))
    seen_before = {"accuracy": float(np.mean(firsts))}
    if min(shares) > 0:  # what was never seen would cost infinitely many nats
        seen_before = {"nats": float(-np.log(shares).mean()), **seen_before}
    return {
        "any answer": {"nats": float(np.log(len(answers))), "accuracy": 1 / len(answers)},
        "what was seen, by frequency": seen_before,
    }
