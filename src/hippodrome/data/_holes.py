"""Cells of series that are hidden, and windows of series with cells hidden: what imputation learns from."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hippodrome.data.base import mixed
from hippodrome.shapes import RegressionBatch

Hide = Literal["points", "spans", "variates", "mixed"]
SPAN = 8
"""Mean length of hidden stretches where the data has no holes to take it from."""


class Hiding(NamedTuple):
    """How cells are hidden: each by itself, in stretches of steps, all of some variates, or any of these.

    ``rate`` is the share of the cells. The steps of a stretch are 1 to 2 ``span`` - 1, each as likely, and in
    every other window a stretch goes through all variates.
    """

    how: Hide
    rate: float
    span: int


class HoledItem(NamedTuple):
    """One window (t, c): values with NaN where missing or hidden, and with NaN where nothing is asked."""

    inputs: Tensor
    targets: Tensor
    dt: Tensor | None = None


class Holed(NamedTuple):
    """A series (t, c) as a part may read it, what is asked of it, and the time steps (t,) if not all one.

    ``asked`` is NaN where nothing is asked; None where cells to ask for are drawn among those of ``values``.
    ``first`` and ``last`` bound the steps that windows begin and end in.
    """

    values: np.ndarray
    asked: np.ndarray | None
    first: int
    last: int
    dt: np.ndarray | None = None


class HoledWindows(Dataset):
    """Windows of ``length`` steps; a series that is shorter is filled up with NaN on its right.

    Training takes every start and, as what is hidden is drawn anew on each visit (``renewed``), never shows a
    window twice the same. Other parts take windows end to end, the last one moved back to end where the part
    does, and hide the same cells always.
    """

    def __init__(
        self, series: Sequence[Holed], length: int, hiding: Hiding, seed: int, *, training: bool
    ) -> None:
        self.series, self.length, self.hiding, self.seed = series, length, hiding, seed
        self.renewed = training
        self.starts = [
            (which, start)
            for which, one in enumerate(series)
            for start in _starts(one, length, 1 if training else length)
        ]
        self.starts = [pair for pair in self.starts if self._usable(*pair)]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> HoledItem:
        if index < 0 or (index >= len(self) and not self.renewed):
            raise IndexError(index)
        which, start = self.starts[index % len(self)]
        one = self.series[which]
        values = self._cut(one.values, start)
        if one.asked is None:
            numbers = np.random.default_rng(mixed(self.seed, index))
            hidden = hidden_cells(self._askable(one, values, start), self.hiding, numbers)
            inputs, targets = np.where(hidden, np.nan, values), np.where(hidden, values, np.nan)
        else:
            inputs, targets = values, self._cut(one.asked, start)
        dt = None if one.dt is None else torch.from_numpy(self._cut(one.dt[:, None], start, 1.0)[:, 0])
        return HoledItem(torch.from_numpy(inputs), torch.from_numpy(targets), dt)

    def _usable(self, which: int, start: int) -> bool:
        """Whether there is anything to learn or to ask in a window."""
        one = self.series[which]
        if one.asked is None:
            return bool(self._askable(one, self._cut(one.values, start), start).any())
        return not bool(np.isnan(self._cut(one.asked, start)).all())

    @staticmethod
    def _askable(one: Holed, values: np.ndarray, start: int) -> np.ndarray:
        """The cells of a window with a value that lie in the part: what stands before is read alone."""
        seen = ~np.isnan(values)
        seen[: max(0, one.first - start)] = False
        return seen

    def _cut(self, values: np.ndarray, start: int, fill: float = np.nan) -> np.ndarray:
        piece = values[start : start + self.length].astype(np.float32)
        missing = self.length - len(piece)
        if not missing:
            return piece
        return np.concatenate([piece, np.full((missing, piece.shape[1]), fill, dtype=np.float32)])


def collate(items: list[HoledItem]) -> RegressionBatch:
    """Windows to a batch (b, t, c)."""
    dt = [item.dt for item in items if item.dt is not None]
    return RegressionBatch(
        torch.stack([item.inputs for item in items]),
        torch.stack([item.targets for item in items]),
        torch.stack(dt) if dt else None,
    )


def hidden_cells(seen: np.ndarray, hiding: Hiding, numbers: np.random.Generator) -> np.ndarray:
    """Which of the cells (t, c) that are seen are to be hidden: one at least where any is seen."""
    t, c = seen.shape
    kinds = ["points", "spans", "variates"] if c > 1 else ["points", "spans"]
    how = kinds[numbers.integers(len(kinds))] if hiding.how == "mixed" else hiding.how
    if how == "points":
        hidden = numbers.random((t, c)) < hiding.rate
    elif how == "variates":
        count = min(max(1, round(hiding.rate * c)), max(1, c - 1))
        hidden = np.zeros((t, c), dtype=bool)
        hidden[:, numbers.permutation(c)[:count]] = True
    else:
        own = bool(numbers.integers(2))
        columns = [_stretches(t, hiding, numbers) for _ in range(c if own else 1)]
        hidden = np.broadcast_to(np.stack(columns, 1), (t, c))
    hidden = hidden & seen
    if not hidden.any() and seen.any():
        places = np.argwhere(seen)
        hidden = np.zeros_like(seen)
        hidden[tuple(places[numbers.integers(len(places))])] = True
    return hidden


def _stretches(t: int, hiding: Hiding, numbers: np.random.Generator) -> np.ndarray:
    """Steps (t,) covered by stretches whose lengths add up to about the rate."""
    hidden = np.zeros(t, dtype=bool)
    count = max(1, round(hiding.rate * t / hiding.span))
    for length in numbers.integers(1, 2 * hiding.span, count):
        start = int(numbers.integers(1 - length, t))
        hidden[max(start, 0) : start + length] = True
    return hidden


def mean_hole(values: np.ndarray) -> int:
    """Mean length of the stretches of missing steps in the columns of a series (t, c); 0 where none is."""
    missing = np.isnan(values)
    begins = missing & ~np.concatenate([np.zeros_like(missing[:1]), missing[:-1]])
    return round(missing.sum() / begins.sum()) if begins.any() else 0


def _starts(one: Holed, length: int, stride: int) -> list[int]:
    """Where windows begin: ``stride`` apart, and one that ends with the part."""
    last = one.last - length
    if last <= one.first:
        # A part that is shorter than a window is read with what stands before it.
        return [max(0, last)] if one.last > one.first else []
    return [*range(one.first, last, stride), last]
