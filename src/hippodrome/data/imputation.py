"""Tables of series with holes made into the task of filling them in: what is hidden, and what is asked."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from hippodrome.data._holes import SPAN, Hide, Hiding, Holed, HoledWindows, collate, hidden_cells, mean_hole
from hippodrome.data._panel import Reading, read_panel
from hippodrome.data._series import borders
from hippodrome.data.base import Task, mixed

HELD = 0.1
"""Share of the cells that are held back to validate, and again to test, where no split by time is named."""


class Grid(NamedTuple):
    """One series of a table: its name, the rows of the table it stands in (-1 for one that was put in), its
    stamps (t,), values (t, c), and time steps (t,) where they differ."""

    name: str
    rows: np.ndarray
    stamps: np.ndarray
    values: np.ndarray
    dt: np.ndarray | None = None


class Grids(NamedTuple):
    """All series of a table and what is known of them.

    ``names`` are the columns that hold the values, ``time`` the one of the stamps, None where there is none.
    """

    where: str
    name: str
    series: list[Grid]
    names: list[str]
    time: str | None
    sampling: str
    season: int


def open_imputation(
    source: Any,
    *,
    length: int = 96,
    split: str | tuple[float, float, float] | None = None,
    hide: Hide = "mixed",
    mask_rate: float = 0.25,
    eval_rate: float | None = None,
    span: int | None = None,
    targets: list[str] | None = None,
    time: str | None = None,
    irregular: bool = False,
    gaps: str = "refuse",
    seed: int = 0,
) -> Task:
    """The task of filling in hidden cells, from a CSV or Parquet file or a data frame, long or wide.

    Without ``split`` the cells themselves are split: about a tenth is held back to validate on and another to
    test on (more where whole variates of few are hidden), in the way of ``hide``, and training never sees
    either. That is what fits holes in a series which is there as a whole. With ``split`` windows are cut out
    of the parts in time, as in the published protocol (Wu et al. 2023, arXiv 2210.02186, section 4.3, hides
    12.5 to 50 % of single points).

    Args:
        source: a file or a data frame; read as by ``open_table``.
        length: steps of a window.
        split: None, or "ett", "ettm", or fractions of time for train, validation and test.
        hide: "points", "spans" of steps, whole "variates" of a window, or "mixed".
        mask_rate: share of the cells hidden in training.
        eval_rate: share hidden to validate and to test; None takes a tenth of the cells without a split, and
            ``mask_rate`` with one.
        span: mean steps of a hidden stretch; None takes that of the holes in the data, or 8.
        targets: columns to fill in; None takes all (long form: ``y``).
        time: the column of stamps; None looks for it by name.
        irregular: whether steps between rows differ. Each is told to a model with continuous time.
        gaps: "refuse" rows that are absent, or "fill" rows of missing values in.
        seed: of what is hidden.

    Raises:
        ValueError: one line that says what is wrong with an option or where in the table.
    """
    return imputation_task(
        read_grids(source, targets=targets, time=time, irregular=irregular, gaps=gaps),
        length=length,
        split=split,
        hide=hide,
        mask_rate=mask_rate,
        eval_rate=eval_rate,
        span=span,
        seed=seed,
    )


def read_grids(
    source: Any,
    *,
    targets: list[str] | None = None,
    time: str | None = None,
    irregular: bool = False,
    gaps: str = "refuse",
) -> Grids:
    """All series of a file or data frame with the rows of the table that they stand in.

    Raises:
        ValueError: one line that names file, row and column of what is wrong.
    """
    reading = Reading(targets, time, irregular=irregular, gaps=gaps)  # type: ignore[arg-type]  # checked there
    panel = read_panel(source, reading)
    series = [
        Grid(
            key,
            panel.rows[low:high],
            panel.times[low:high],
            panel.values[low:high],
            None if panel.dt is None else panel.dt[low:high],
        )
        for key, (low, high) in zip(panel.ids, pairwise(panel.offsets.tolist()), strict=True)
    ]
    clock, usual = panel.reading.time, panel.usual
    sampling = "rows, no stamps" if clock is None else usual.name
    return Grids(
        panel.where, panel.name, series, list(panel.reading.targets or ()), clock, sampling, usual.season
    )


def imputation_task(
    grids: Grids,
    *,
    length: int,
    split: str | tuple[float, float, float] | None,
    hide: Hide,
    mask_rate: float,
    eval_rate: float | None,
    span: int | None,
    seed: int,
) -> Task:
    """The task of series that are read: windows, statistics of what training sees, simple fillings.

    Raises:
        ValueError: an option out of its range, a variate with no value, or too few cells to hold any back.
    """
    holes = [mean_hole(one.values) for one in grids.series]
    span = span or max(holes, default=0) or SPAN
    training = Hiding(hide, mask_rate, span)
    other = Hiding(hide, (HELD if split is None else mask_rate) if eval_rate is None else eval_rate, span)
    _check(length, training, other)
    _check_values(grids)
    if split is None:
        parts = _by_cells(grids.series, length, other, seed)
    else:
        parts = _by_time(grids.series, split, grids.where)
    sets = [
        HoledWindows(part, length, training if i == 0 else other, seed + i, training=i == 0)
        for i, part in enumerate(parts)
    ]
    for words, windows in zip(("train", "validate", "test"), sets, strict=True):
        if not len(windows):
            raise ValueError(
                f"{grids.where}: there is no cell with a value left to {words} on. Give more rows, or a "
                f"smaller share to hold back."
            )
    known = np.concatenate([one.values[one.first : one.last] for one in parts[0]])
    if np.isnan(known).all(0).any():
        name = grids.names[int(np.flatnonzero(np.isnan(known).all(0))[0])]
        raise ValueError(
            f"{grids.where}: of {name!r} no value is left to train on beside those that are held back. Take "
            f"a shorter window, or give more rows."
        )
    location, scale = np.nanmean(known, 0), np.nanstd(known, 0)
    return Task(
        kind="imputation",
        name=grids.name,
        train=sets[0],
        valid=sets[1],
        test=sets[2],
        collate=collate,
        facts={"channels": known.shape[1], "location": location.tolist(), "scale": scale.tolist()},
        tokenizer=None,
        details={
            "source": grids.where,
            "rows": sum(len(one.values) for one in grids.series),
            "variates": grids.names,
            "sampling": grids.sampling,
            "season": grids.season,
            "split": "by cells" if split is None else split if isinstance(split, str) else list(split),
            "window": length,
            "series": len(grids.series),
            "missing": int(sum(np.isnan(one.values).sum() for one in grids.series)),
            "hidden": {"how": hide, "in training": mask_rate, "to test": other.rate, "span": span},
            "windows": dict(zip(("train", "valid", "test"), map(len, sets), strict=True)),
        },
        naive=lambda: naive(sets[2], location, scale),
    )


def held_back(
    values: np.ndarray, length: int, hiding: Hiding, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A series (t, c) in three: what may be seen, what is held back to validate, and what to test."""
    kinds = np.zeros(values.shape, dtype=int)
    for start in range(0, len(values), length):
        numbers = np.random.default_rng(mixed(seed, start))
        piece, free = values[start : start + length], kinds[start : start + length]
        for kind in (1, 2):
            # Of a variate something is left to see, whatever is held back.
            hidden = hidden_cells(~np.isnan(piece) & (free == 0), hiding, numbers)
            free[hidden] = kind
    seen, valid, test = (np.where(kinds == kind, values, np.nan) for kind in range(3))
    return seen, valid, test


def interpolated(values: np.ndarray) -> np.ndarray:
    """A series (t, c) with each hole filled on a line between its neighbours, at an end with the nearest."""
    filled = values.copy()
    steps = np.arange(len(values))
    for column in filled.T:
        known = ~np.isnan(column)
        if known.any():
            column[~known] = np.interp(steps[~known], steps[known], column[known])
    return filled


def carried(values: np.ndarray) -> np.ndarray:
    """A series (t, c) with each hole filled with the last value before it, in front of the first with it."""
    known = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(known, np.arange(len(values))[:, None], -1), 0)
    first = np.where(known.any(0), known.argmax(0), 0)
    return np.take_along_axis(values, np.where(last < 0, first, last), 0)


def naive(windows: HoledWindows, location: np.ndarray, scale: np.ndarray) -> dict[str, dict[str, float]]:
    """Mean squared and absolute error of simple fillings of the windows, on scaled values."""
    spread = np.where(scale > 0, scale, 1.0)
    totals = {name: np.zeros(2) for name in ("linear interpolation", "last value carried", "train mean")}
    count = 0
    for i in range(len(windows)):
        item = windows[i]
        inputs, targets = ((part.double().numpy() - location) / spread for part in item[:2])
        asked = ~np.isnan(targets)
        fillings = (interpolated(inputs), carried(inputs), np.zeros_like(inputs))
        for total, filling in zip(totals.values(), fillings, strict=True):
            error = np.nan_to_num(filling)[asked] - targets[asked]
            total += [np.square(error).sum(), np.abs(error).sum()]
        count += int(asked.sum())
    return {
        name: {"mse": float(total[0] / max(count, 1)), "mae": float(total[1] / max(count, 1))}
        for name, total in totals.items()
    }


def _by_cells(series: Sequence[Grid], length: int, hiding: Hiding, seed: int) -> list[list[Holed]]:
    """Train, validation and test of whole series: the same inputs, other cells asked for."""
    parts: list[list[Holed]] = [[], [], []]
    for i, one in enumerate(series):
        seen, *held = held_back(one.values, length, hiding, mixed(seed, i))
        for part, asked in zip(parts, (None, *held), strict=True):
            part.append(Holed(seen, asked, 0, len(seen), one.dt))
    return parts


def _by_time(
    series: Sequence[Grid], split: str | tuple[float, float, float], where: str
) -> list[list[Holed]]:
    """The three parts of series in time; what a window reaches of the part before is read and not asked."""
    parts: list[list[Holed]] = [[], [], []]
    for one in series:
        ends = borders(len(one.values), split, where)
        for i, part in enumerate(parts):
            first = ends[i - 1] if i else 0
            part.append(Holed(one.values[: ends[i]], None, first, ends[i], one.dt))
    return parts


def _check(length: int, training: Hiding, other: Hiding) -> None:
    if length < 2 or training.span < 1:
        raise ValueError(
            f"a window has 2 steps or more and a hidden stretch 1 or more; got {length} and {training.span}. "
            f"Correct them."
        )
    for hiding in (training, other):
        if not 0 < hiding.rate < 1:
            raise ValueError(
                f"a share of cells to hide lies inside (0, 1); got {hiding.rate:g}. Ask for 0.25, say."
            )
        if hiding.how not in ("points", "spans", "variates", "mixed"):
            raise ValueError(
                f"cells are hidden as points, spans, variates or mixed; got {hiding.how!r}. Take one."
            )


def _check_values(grids: Grids) -> None:
    """Some values are hidden to learn from and some to choose and to test by: of 8 each has its share."""
    counts = np.sum([(~np.isnan(one.values)).sum(0) for one in grids.series], 0)
    for name, count in zip(grids.names, counts, strict=True):
        if not 0 < count < 8:
            continue
        raise ValueError(
            f"{grids.where}: some values are hidden to learn from and some to test by, so a column has 8 or "
            f"more; {name!r} has {count}. Give more rows, or leave it out of the targets."
        )
    if (counts == 0).any():
        name = grids.names[int(np.flatnonzero(counts == 0)[0])]
        raise ValueError(
            f"{grids.where}: every column to fill in needs values to learn from; {name!r} has none. Leave it "
            f"out of the targets."
        )
