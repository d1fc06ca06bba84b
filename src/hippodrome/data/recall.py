"""Recall: sequences of drawn tokens that end in a question about themselves, for models of language.

Associative recall and induction as in Fu, Dao, Saab, Thomas, Rudra, Ré 2022 (arXiv 2212.14052, section 3.1
and table 1). A task is a function that draws one sequence; all else is shared.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from hippodrome.data.base import Task, mixed
from hippodrome.data.text import IGNORED, Window, collate


class Drawn(NamedTuple):
    """One sequence: tokens (t,), and what is to be predicted at each, IGNORED where nothing is."""

    tokens: np.ndarray
    targets: np.ndarray


Draw = Callable[[np.random.Generator], Drawn]


class Drawings(Dataset):
    """Sequences drawn from the seed and their number when they are asked for: item i is always the same.

    Args:
        draw: draws one.
        count: how many there are.
        seed: of all of them; parts of one task take different ones.
        keys: tokens that are asked about wherever they come again, not at the end alone; none by default.
    """

    def __init__(self, draw: Draw, count: int, seed: int, keys: range = range(0)) -> None:
        self.draw, self.count, self.seed, self.keys = draw, count, seed, keys

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Window:
        if not 0 <= index < len(self):
            raise IndexError(index)
        tokens, targets = self.draw(np.random.default_rng(mixed(self.seed, index)))
        if self.keys:
            key = (tokens >= self.keys.start) & (tokens < self.keys.stop)
            targets = np.where(key, dictionary(tokens), targets)
        return Window(torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(targets.astype(np.int64)))


def open_associative_recall(
    *, length: int = 20, vocabulary: int = 10, count: int = 5000, seed: int = 0
) -> Task:
    """Pairs of a key and its value, then one of the keys again: which value was it?

    Each sequence draws a value for every key, then keys one after the other, each with its value: a key may
    come several times, always with the same value. It ends with one of the keys that came, each as likely.
    Validation and test ask for the value at the end alone. Training asks for it at every key that has come
    before: the authors' code trains on every next token, of which these are the ones that can be known, and
    a question a sequence is so faint a signal that little is learned in thousands of steps.

    Args:
        length: tokens of the pairs; the question is one more.
        vocabulary: number of tokens; the first half are keys, the second half values.
        count: train sequences; a tenth as many validate, and as many test.
        seed: of the sequences.

    Raises:
        ValueError: an odd length or vocabulary, too small a one, or too few sequences.
    """
    if length < 2 or length % 2 or vocabulary < 4 or vocabulary % 2:
        raise ValueError(
            "associative_recall takes pairs of a key and a value: an even length of 2 or more and an even "
            f"vocabulary of 4 or more; got {length} and {vocabulary}. Take even numbers."
        )
    half = vocabulary // 2

    def draw(random: np.random.Generator) -> Drawn:
        value = half + random.integers(half, size=half)
        keys = random.integers(half, size=length // 2)
        asked = random.choice(np.unique(keys))
        pairs = np.stack([keys, value[keys]], 1).ravel()
        return _asked_at_the_end(np.append(pairs, asked), int(value[asked]))

    answers = range(half, vocabulary)
    return _task("associative_recall", draw, vocabulary, answers, count, seed, keys=range(half))


def open_induction(*, length: int = 30, vocabulary: int = 20, count: int = 5000, seed: int = 0) -> Task:
    """Random tokens with a special one at a random place; at the end it comes again: what followed it?

    Args:
        length: tokens before the special one comes again.
        vocabulary: number of ordinary tokens; the special one is one more.
        count: train sequences; a tenth as many validate, and as many test.
        seed: of the sequences.

    Raises:
        ValueError: a length or vocabulary below 2, or too few sequences.
    """
    if length < 2 or vocabulary < 2:
        raise ValueError(
            "induction takes a length and a vocabulary of 2 or more, so that something follows the special "
            f"token; got {length} and {vocabulary}. Take larger ones."
        )

    def draw(random: np.random.Generator) -> Drawn:
        tokens = np.append(random.integers(vocabulary, size=length), vocabulary)
        place = random.integers(length - 1)
        tokens[place] = vocabulary
        return _asked_at_the_end(tokens, int(tokens[place + 1]))

    return _task("induction", draw, vocabulary + 1, range(vocabulary), count, seed)


def dictionary(tokens: np.ndarray) -> np.ndarray:
    """What followed the last earlier appearance of each token (t,); IGNORED where there was none.

    The rule that answers every question of these tasks.
    """
    after: dict[int, int] = {}
    found = np.full(len(tokens), IGNORED)
    for i, token in enumerate(tokens.tolist()):
        found[i] = after.get(token, IGNORED)
        if i + 1 < len(tokens):
            after[token] = int(tokens[i + 1])
    return found


def _asked_at_the_end(tokens: np.ndarray, answer: int) -> Drawn:
    targets = np.full(len(tokens), IGNORED)
    targets[-1] = answer
    return Drawn(tokens, targets)


def _task(
    name: str,
    draw: Draw,
    vocab_size: int,
    answers: range,
    count: int,
    seed: int,
    keys: range = range(0),
) -> Task:
    if count < 1:
        raise ValueError(f"{name}: at least one sequence to train on is needed; got {count}. Take 5000, say.")
    held = max(count // 10, 1)
    sizes = {"train": count, "valid": held, "test": held}
    train, valid, test = (
        Drawings(draw, size, 3 * seed + part, keys if part == 0 else range(0))
        for part, size in enumerate(sizes.values())
    )
    steps = len(train[0].tokens)
    details: dict[str, Any] = {
        "source": f"generated, {name}",
        "asked": "what followed the same token before",
        "known best error": {"nats": 0.0},
        "seed": seed,
        "sequences": sizes,
        "tokens": {part: size * steps for part, size in sizes.items()},
        "answers": len(answers),
    }
    return Task(
        kind="language",
        name=name,
        train=train,
        valid=valid,
        test=test,
        collate=collate,
        facts={"vocab_size": vocab_size},
        tokenizer=None,
        details=details,
        naive=lambda: _naive(test, answers),
    )


def _naive(test: Drawings, answers: range) -> dict[str, dict[str, float]]:
    """All answers alike, and those seen so far by their frequency, the most frequent as the first guess."""
    shares, firsts = [], []
    for i in range(len(test)):
        tokens, targets = (part.numpy() for part in test[i])
        for place in np.flatnonzero(targets != IGNORED):
            past = tokens[: place + 1]
            counts = np.bincount(
                past[(past >= answers.start) & (past < answers.stop)], minlength=answers.stop
            )
            top = np.flatnonzero(counts == counts.max())
            shares.append(counts[targets[place]] / counts.sum())
            firsts.append((targets[place] in top) / len(top))
    return {
        "any answer": {"nats": float(np.log(len(answers))), "accuracy": 1 / len(answers)},
        "what was seen, by frequency": {
            "nats": float(-np.log(shares).mean()),
            "accuracy": float(np.mean(firsts)),
        },
    }
