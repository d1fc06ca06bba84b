"""Pictures and their captions interleaved in one sequence of tokens: two modalities for a language model."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hippodrome.data._open import open_source
from hippodrome.data.base import Task, fault, mixed
from hippodrome.data.text import IGNORED, Window, collate

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = " abcdefghijklmnopqrstuvwxyz0123456789-"
"""What captions are spelled with; anything else is left out."""
LEVELS = 16
"""Of grey in a picture, evenly spaced."""
TEXT, IMAGE = 0, 1


class Interleaved(Dataset):
    """Sequences of pairs, each a caption and its picture in one order or the other, drawn by their number.

    A picture is a mark, then its levels row by row; a caption its letters and a space. Which pictures, and
    what comes first in each pair, follow from the seed and the number alone.

    Args:
        levels: (n, pixels) of tokens.
        captions: of each, as tokens.
        count: sequences.
        pairs: in each.
        length: of every sequence; a shorter one is filled up and asks nothing there.
        mark: the token in front of a picture.
        seed: of all of them; parts of one task take different ones.
    """

    def __init__(
        self,
        levels: np.ndarray,
        captions: list[np.ndarray],
        count: int,
        pairs: int,
        length: int,
        mark: int,
        seed: int,
    ) -> None:
        self.levels, self.captions = levels, captions
        self.count, self.pairs, self.length = count, pairs, length
        self.mark, self.seed = mark, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Window:
        if not 0 <= index < len(self):
            raise IndexError(index)
        random = np.random.default_rng(mixed(self.seed, index))
        pieces: list[np.ndarray] = []
        for chosen in random.integers(len(self.levels), size=self.pairs):
            picture = np.concatenate([[self.mark], self.levels[chosen]])
            pair = [self.captions[chosen], picture]
            pieces += pair[:: 1 if random.integers(2) else -1]
        sequence = np.concatenate(pieces).astype(np.int64)
        tokens = np.zeros(self.length + 1, dtype=np.int64)
        targets = np.full(self.length + 1, IGNORED)
        tokens[: len(sequence)] = sequence
        targets[: len(sequence) - 1] = sequence[1:]
        return Window(torch.from_numpy(tokens[:-1]), torch.from_numpy(targets[:-1]))


def open_interleaved(
    path: str | Path,
    *,
    count: int = 4000,
    pairs: int = 3,
    size: int = 14,
    valid: float = 0.2,
    seed: int = 0,
) -> Task:
    """Labelled pictures as a language of two modalities: letters of captions, and grey levels of pixels.

    The setting of Mixture-of-Mamba with discrete image tokens (Liang et al. 2025, arXiv 2501.16295; they are
    codes of a learned tokenizer there, levels of pixels here). A caption is the name of the label, of a digit
    its English word. What comes second in a pair can be told from the first: what a picture shows from its
    caption, or the caption from the picture. Letters and levels are tokens of their own, so the modality of a
    token is known from the token.

    Args:
        path: an archive (``.npz``) of pictures and labels, or a folder of IDX files.
        count: train sequences; a tenth as many validate, and as many test. Each part shows pictures of its
            own.
        pairs: in a sequence.
        size: rows and columns that a picture is shrunk to, by whole factors.
        valid: share of the train pictures that validate.
        seed: of the cut and of the sequences.

    Raises:
        ValueError: no such pictures, or sizes below 1.
    """
    path = Path(path)
    if min(count, pairs, size) < 1:
        raise fault(
            path, "a count, pairs and a size of 1 or more", f"count={count}, pairs={pairs}, size={size}",
            "Take 4000, 3 and 14, say.",
        )  # fmt: skip
    shown = open_source(path, order="pixels", valid=valid, seed=seed)
    if "grid" not in shown.details:
        raise fault(
            path, "pictures with labels", f"a {shown.kind} source without pictures", "Name another source."
        )
    grid, names = shown.details["grid"], shown.facts["classes"]
    alphabet = {letter: token for token, letter in enumerate(LETTERS)}
    words = [DIGITS[int(n)] if n.isdigit() and int(n) < 10 else n.lower() for n in names]
    spelled = [np.array([alphabet[c] for c in f"{word} " if c in alphabet]) for word in words]
    mark, first = len(LETTERS), len(LETTERS) + 1
    factor = max(1, -(-max(grid) // size))
    seen = [grid[0] // factor, grid[1] // factor]
    longest = pairs * (seen[0] * seen[1] + 1 + max(map(len, spelled))) - 1
    held = max(count // 10, 1)
    sets = []
    for i, (part, many) in enumerate(
        zip((shown.train, shown.valid, shown.test), (count, held, held), strict=True)
    ):
        items: Any = [part[j] for j in range(len(part))]  # type: ignore[arg-type]
        grey = _shrunk(np.stack([item.inputs.numpy() for item in items]), grid, factor)
        tokens = first + np.minimum((grey * LEVELS).astype(np.int64), LEVELS - 1)
        captions = [spelled[item.label] for item in items]
        sets.append(Interleaved(tokens, captions, many, pairs, longest, mark, 3 * seed + i))
    vocabulary = first + LEVELS
    details: dict[str, Any] = {
        "source": str(path),
        "pictures": dict(zip(("train", "valid", "test"), (len(part.levels) for part in sets), strict=True)),
        "shown as": f"{seen[0]} x {seen[1]} pixels of {LEVELS} levels",
        "pairs": pairs,
        "sequences": {"train": count, "valid": held, "test": held},
        "seed": seed,
    }
    return Task(
        kind="language",
        name=f"interleaved-{path.stem}",
        train=sets[0],
        valid=sets[1],
        test=sets[2],
        collate=collate,
        facts={
            "bytes_per_token": None,
            "vocab_size": vocabulary,
            "modalities": [TEXT] * len(LETTERS) + [IMAGE] * (1 + LEVELS),
            "modality_names": ["text", "image"],
        },
        tokenizer=None,
        details=details,
        naive=lambda: _naive(sets[0], sets[2], vocabulary),
    )


def _shrunk(pictures: np.ndarray, grid: list[int], factor: int) -> np.ndarray:
    """Grey values from 0 to 1 (n, pixels), means over squares of ``factor`` pixels."""
    grey = pictures.astype(np.float32).mean(-1).reshape(-1, *grid) / 255
    rows, columns = grid[0] // factor, grid[1] // factor
    whole = grey[:, : rows * factor, : columns * factor]
    return whole.reshape(-1, rows, factor, columns, factor).mean((2, 4)).reshape(len(grey), -1)


def _naive(train: Interleaved, test: Interleaved, vocabulary: int) -> dict[str, dict[str, float]]:
    """Each token by its frequency in train sequences, whatever came before."""
    counts = np.ones(vocabulary)
    for i in range(min(len(train), 500)):
        asked = train[i].targets.numpy()
        counts += np.bincount(asked[asked != IGNORED], minlength=vocabulary)
    log_share = np.log(counts / counts.sum())
    targets = np.concatenate([test[i].targets.numpy() for i in range(len(test))])
    targets = targets[targets != IGNORED]
    first = int(counts.argmax())
    return {
        "tokens by their frequency": {
            "nats": float(-log_share[targets].mean()),
            "accuracy": float((targets == first).mean()),
        }
    }
