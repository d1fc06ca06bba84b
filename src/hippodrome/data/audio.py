"""Recordings as tokens: each sample one of 256 levels, for language models of sound."""

import math
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hippodrome.data.base import Task, fault, mixed
from hippodrome.data.quantization import LEVELS, SILENCE, Quantization, quantize
from hippodrome.data.wav import SUFFIXES, check_recordings, decimated, every_nth
from hippodrome.shapes import TokenBatch

IGNORED = -100
"""The target at which nothing is to be predicted."""

WINDOW = 16_384
"""Samples a window of a single recording, where no length is given: about a second at 16 kHz."""


class Piece(NamedTuple):
    """One item, (t,) each: levels, the levels to predict, and where a recording begins."""

    tokens: Tensor
    targets: Tensor
    starts: Tensor


class Recordings(Dataset):
    """Whole recordings. Each is predicted from its first sample on: a token of silence stands before it."""

    def __init__(self, levels: list[np.ndarray]) -> None:
        self.levels = levels

    def __len__(self) -> int:
        return len(self.levels)

    def __getitem__(self, index: int) -> Piece:
        targets = torch.from_numpy(self.levels[index].astype(np.int64))
        return _piece(targets, torch.arange(len(targets)) == 0, SILENCE)


class Windows(Dataset):
    """Windows of ``length`` samples over recordings laid end to end.

    With a seed they begin at offsets that look random, the same at every visit, and there are as many as a
    long run may want; without one they are end to end, and every sample is a target once.
    """

    def __init__(self, levels: list[np.ndarray], length: int, seed: int | None = None) -> None:
        self.stream = np.concatenate(levels)
        self.starts = np.zeros(len(self.stream), dtype=bool)
        self.starts[np.cumsum([0, *map(len, levels[:-1])])] = True
        self.length, self.seed = length, seed

    def __len__(self) -> int:
        windows = math.ceil(len(self.stream) / self.length)
        return windows if self.seed is None else max(2**17, windows)

    def __getitem__(self, index: int) -> Piece:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self.seed is None:
            first = index * self.length
        else:
            first = mixed(self.seed, index) % (max(1, len(self.stream) - self.length + 1))
        last = first + self.length
        targets = torch.from_numpy(self.stream[first:last].astype(np.int64))
        before = SILENCE if first == 0 else int(self.stream[first - 1])
        return _piece(targets, torch.from_numpy(self.starts[first:last].copy()), before)


def _piece(targets: Tensor, starts: Tensor, before: int) -> Piece:
    tokens = torch.cat([targets.new_tensor([before]), targets[:-1]])
    return Piece(torch.where(starts, SILENCE, tokens), targets, starts)


def collate(items: list[Piece]) -> TokenBatch:
    """Pieces to a batch (b, t), silence behind the end of the shorter ones, which is not predicted."""

    def joined(parts: list[Tensor], value: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=value)

    resets = joined([item.starts for item in items], 0)
    resets[:, 0] = False  # where every row begins anyway
    return TokenBatch(
        joined([item.tokens for item in items], SILENCE),
        joined([item.targets for item in items], IGNORED),
        resets if bool(resets.any()) else None,
    )


def open_audio(
    path: str | Path,
    *,
    rate: int | None = None,
    seconds: float | None = None,
    length: int | None = None,
    quantization: str = "mu-law",
    count: int | None = None,
    seed: int = 0,
) -> Task:
    """A language task over samples of sound: a recording, or all recordings below a folder (wav, flac, ogg).

    ``folder/train``, ``folder/test`` and, if wanted, ``folder/valid`` are taken as they are; without them
    10 % of the recordings validate and 10 % test. One recording is cut in time: 90 % to train, 5 %, 5 %.
    Several tracks are averaged. Everything is read at once and kept as one byte a sample.

    Args:
        path: a recording, or a folder.
        rate: samples a second to read at, the recordings' own divided by a whole number; None for their own.
        seconds: longest piece that is kept, from the start of each recording; None for all of it.
        length: samples a window, over recordings laid end to end with a reset at each start; None for whole
            recordings one by one, and for windows of 16,384 samples of a single one.
        quantization: "mu-law", finer near silence, or "linear".
        count: how many train recordings to keep; None for all.
        seed: of the cuts, and of the offsets of the train windows.

    Raises:
        ValueError: no recordings, one that cannot be read or is empty, two that differ in sampling rate or
            number of tracks, too few to make three parts of, or an option out of its range.
    """
    path = Path(path)
    kinds = get_args(Quantization)
    if quantization not in kinds:
        raise ValueError(f"{path}: sound is quantized as {' or '.join(kinds)}; got {quantization!r}.")
    for what, value in (("length", length), ("count", count)):
        if value is not None and value < 1:
            raise ValueError(f"{path}: {what} is 1 or more; got {value}.")
    parts = _files(path, count, seed)
    files = [file for part in parts for file in part]
    lengths, native, tracks = check_recordings(files)
    every = every_nth(path, rate, native)
    most = None if seconds is None else round(seconds * native)
    if most is not None and most < every:
        raise ValueError(
            f"{path}: the longest piece holds one sample at least; got {seconds:g} seconds at {native} Hz. "
            f"Take more."
        )

    def read(file: Path) -> np.ndarray:
        frames = -1 if most is None else most
        samples = soundfile.read(file, frames, dtype="float32", always_2d=True)[0].mean(1, keepdims=True)
        return quantize(decimated(samples, every)[:, 0], quantization)  # type: ignore[arg-type]

    if path.is_file():
        whole = read(path)
        low, high = int(0.9 * len(whole)), int(0.95 * len(whole))
        levels = [[whole[:low]], [whole[low:high]], [whole[high:]]]
        length = length or WINDOW
        if not 0 < low < high < len(whole) or low < length:
            raise fault(
                path,
                f"more than {length} samples in the first 90 %, which train",
                f"{low}",
                f"Give a longer recording, or a length of at most {max(1, low)}.",
            )
    else:
        levels = [[read(file) for file in part] for part in parts]
    samples = {name: sum(map(len, p)) for name, p in zip(("train", "valid", "test"), levels, strict=True)}
    sets = [Recordings(part) if length is None else Windows(part, length) for part in levels]
    cut = 0 if most is None else int((lengths > most).sum())
    return Task(
        kind="language",
        name=path.stem,
        train=sets[0] if length is None else Windows(levels[0], length, seed),
        valid=sets[1],
        test=sets[2],
        collate=collate,
        facts={"vocab_size": LEVELS},
        tokenizer=None,
        details={
            "source": str(path),
            "sound": {"rate": native // every, "quantization": quantization},
            "sampling": f"{native // every} Hz"
            + ("" if every == 1 else f": recorded at {native} Hz, low-pass, every {every}. sample"),
            "tracks": "1" if tracks == 1 else f"the mean of {tracks}",
            "recordings": dict(zip(samples, map(len, levels), strict=True)),
            "samples": samples,
            "window": length or "whole recordings",
            **({} if most is None else {"cut": f"{cut} of {len(files)} to their first {seconds:g} s"}),
        },
        naive=lambda: _counted(levels[0], levels[2]),
    )


def _files(path: Path, count: int | None, seed: int) -> list[list[Path]]:
    """The recordings of each part."""
    if path.is_file():
        return [[path]]
    names = ("train", "valid", "test")
    ready = (path / "train").is_dir() and (path / "test").is_dir()
    found = [_below(path / name if ready else path) for name in names]
    if not ready:
        found[1:] = [], []
    for i, share in ((1, 0.1), (2, 0.1)):
        if not found[i]:
            order = sorted(range(len(found[0])), key=lambda j: mixed(seed + i, j))
            size = max(1, round(share * sum(map(len, found))))
            found[i] = [found[0][j] for j in sorted(order[:size])]
            found[0] = [found[0][j] for j in sorted(order[size:])]
    if count is not None:
        order = sorted(range(len(found[0])), key=lambda j: mixed(seed, j))
        found[0] = [found[0][j] for j in sorted(order[:count])]
    if not all(found):
        raise fault(
            path,
            f"three recordings or more ({', '.join(SUFFIXES)})",
            f"{sum(map(len, found))}" if any(found) else "none",
            "Name a folder that holds some, or one recording.",
        )
    return found


def _below(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())


def _counted(train: list[np.ndarray], test: list[np.ndarray]) -> dict[str, dict[str, float]]:
    """Cross-entropy of the test samples under counts of the train samples, alone and after each level."""
    single, pairs = np.ones(LEVELS), np.zeros((LEVELS, LEVELS))
    for levels in train:
        single += np.bincount(levels, minlength=LEVELS)
        np.add.at(pairs, (np.append(SILENCE, levels[:-1]), levels), 1)
    alone = single / single.sum()
    # After a level that was rare, the frequencies of all samples weigh as much as 16 that were seen.
    after = (pairs + 16 * alone) / (pairs.sum(1, keepdims=True) + 16)
    targets = np.concatenate(test)
    before = np.concatenate([np.append(SILENCE, levels[:-1]) for levels in test])

    def scores(chance: np.ndarray, guess: np.ndarray) -> dict[str, float]:
        nats = float(-np.log(chance).mean())
        hits = float((guess == targets).mean())
        return {"nats": nats, "bits_per_byte": nats / math.log(2), "accuracy": hits}

    return {
        "unigram": scores(alone[targets], np.full_like(targets, alone.argmax())),
        "bigram": scores(after[before, targets], after.argmax(1)[before]),
    }


__all__ = ["Piece", "Recordings", "Windows", "collate", "open_audio"]
