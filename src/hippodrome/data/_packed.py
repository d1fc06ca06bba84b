"""Documents packed into rows of one length: resets keep them apart, and nothing is predicted across them."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hippodrome.data.base import Task, fault
from hippodrome.shapes import TokenBatch
from hippodrome.text.folder import Words

IGNORED = -100
"""The target at which nothing is to be predicted, as in ``torch.nn.functional.cross_entropy``."""


class Document(NamedTuple):
    """The token ids of a document (t,), and which of them are to be learned."""

    ids: np.ndarray
    learned: np.ndarray


class Row(NamedTuple):
    """One item: tokens, their successors, and which tokens are the first of a document, (t,) each."""

    tokens: Tensor
    targets: Tensor
    resets: Tensor


class PackedRows(Dataset):
    """Documents in rows of ``length`` tokens.

    A document of n tokens takes n - 1 places, at each of which its next token is the target where that is to
    be learned. One that is longer than a row is cut, and the rest starts afresh. What is left of a row is
    filled up with a document of zeros that asks for nothing.
    """

    def __init__(self, documents: Sequence[Document], length: int) -> None:
        self.length = length
        pieces = [
            Document(one.ids[start : start + length + 1], one.learned[start : start + length + 1])
            for one in documents
            for start in range(0, max(len(one.ids) - 1, 0), length)
        ]
        self.pieces = [piece for piece in pieces if piece.learned[1:].any()]
        self.rows = pack([len(piece.ids) - 1 for piece in self.pieces], length)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        tokens, targets = np.zeros(self.length, np.int64), np.full(self.length, IGNORED)
        resets, start = np.zeros(self.length, bool), 0
        for number in self.rows[index]:
            ids, learned = self.pieces[number]
            end = start + len(ids) - 1
            tokens[start:end] = ids[:-1]
            targets[start:end] = np.where(learned[1:], ids[1:], IGNORED)
            resets[start], start = True, end
        resets[start : start + 1] = True
        return Row(torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(resets))


def pack(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Numbers of pieces by row, each row with pieces of ``room`` in all at most.

    Longest first, each into the fullest row that has the space (best fit, decreasing): few rows, and no piece
    is cut (Ding et al. 2024, "Fewer truncations improve language modeling", arXiv 2404.10830, section 3).
    """
    rows: list[list[int]] = []
    # Rows by the space that is left, and those spaces in order.
    open_rows: dict[int, list[int]] = {}
    spaces: list[int] = []
    for number in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        size = sizes[number]
        place = bisect_left(spaces, size)
        if place == len(spaces):
            row, left = len(rows), room - size
            rows.append([])
        else:
            space = spaces[place]
            row, left = open_rows[space].pop(), space - size
            if not open_rows[space]:
                del open_rows[space], spaces[place]
        rows[row].append(number)
        if left:
            if left not in open_rows:
                open_rows[left] = []
                insort(spaces, left)
            open_rows[left].append(row)
    return rows


def collate(items: list[Row]) -> TokenBatch:
    """Rows of one length to a batch (b, t)."""
    tokens, targets, resets = (torch.stack(column) for column in zip(*items, strict=True))
    return TokenBatch(tokens, targets, resets)


def packed_task(
    documents: Sequence[Document],
    words: Words,
    where: str | Path,
    *,
    length: int,
    valid: float,
    seed: int,
    lengths: np.ndarray,
    details: dict[str, Any],
) -> Task:
    """A language task of documents: shares of them drawn to validate and to test, the others to train on.

    ``lengths`` are the bytes of each token id.

    Raises:
        ValueError: too few documents for three parts, a share that is none, or rows without a token.
    """
    if length < 1:
        raise ValueError(f"a row holds at least one token; got length {length}. Ask for length 1 or more.")
    if not 0 < valid < 0.5:
        raise ValueError(
            f"the shares to validate and to test on are equal, above 0 and below a half; got {valid:g}. Take "
            "0.05, say."
        )
    usable = [one for one in documents if len(one.ids) > 1 and one.learned[1:].any()]
    if len(usable) < 3:
        raise fault(
            where,
            "3 documents or more with something to learn, one each to train, validate and test on",
            f"{len(usable)} of {len(documents)}",
            "Give more of them.",
        )
    held = min(max(1, round(valid * len(usable))), (len(usable) - 1) // 2)
    order = np.random.default_rng(seed).permutation(len(usable))
    cut = {"test": order[:held], "valid": order[held : 2 * held], "train": order[2 * held :]}
    chosen = {name: [usable[i] for i in cut[name]] for name in ("train", "valid", "test")}
    sets = {name: PackedRows(part, length) for name, part in chosen.items()}
    plain = len(lengths) == 256 and bool((lengths == 1).all())
    return Task(
        kind="language",
        name=Path(where).stem,
        train=sets["train"],
        valid=sets["valid"],
        test=sets["test"],
        collate=collate,
        facts={
            "vocab_size": len(lengths),
            "bytes_per_token": 1.0 if plain else lengths.tolist(),
        },
        tokenizer=words.tokenizer,
        details={
            **details,
            "tokenizer": "bytes" if plain else f"{len(lengths)} tokens",
            "documents": {name: len(part) for name, part in chosen.items()},
            "tokens": {name: sum(len(one.ids) for one in part) for name, part in chosen.items()},
            "learned": {
                name: sum(int(one.learned[1:].sum()) for one in part) for name, part in chosen.items()
            },
            "rows": {name: len(part) for name, part in sets.items()},
            "longer than a row": sum(len(one.ids) > length + 1 for one in usable),
            "window": length,
        },
        naive=lambda: {"unigram": _unigram(chosen["train"], chosen["test"], lengths)},
        words=words,
    )


def _unigram(train: Sequence[Document], test: Sequence[Document], lengths: np.ndarray) -> dict[str, float]:
    """Cross-entropy of what is learned in the test part under its train frequencies, one added to each."""
    asked = [np.concatenate([one.ids[1:][one.learned[1:]] for one in part]) for part in (train, test)]
    counts = np.bincount(asked[0], minlength=len(lengths)) + 1.0
    nats = float(-np.log(counts / counts.sum())[asked[1]].mean())
    return {
        "nats": nats,
        "bits_per_byte": nats / np.log(2) / float(lengths[asked[1]].mean()),
        "accuracy": float((asked[1] == counts.argmax()).mean()),
    }
