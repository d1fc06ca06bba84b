"""Series made into a forecasting task: borders, windows, train statistics, naive baselines."""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hippodrome.data.base import Task
from hippodrome.shapes import SeriesBatch

Forecast = Callable[["Series", np.ndarray], np.ndarray]


class Series(NamedTuple):
    """One series (t, c) in raw units, NaN where a value is missing, and the steps at which its parts end.

    ``observed`` (t, p) are covariates seen in the past alone, ``known`` (t, k) those known ahead too,
    ``static`` (s,) does not change. ``dt`` (t,) are the steps in front of the rows, 1 where they are the
    usual ones; None where all are.
    """

    name: str
    values: np.ndarray
    borders: tuple[int, int, int]
    observed: np.ndarray | None = None
    known: np.ndarray | None = None
    static: np.ndarray | None = None
    dt: np.ndarray | None = None


class SeriesItem(NamedTuple):
    """One window in raw units, its parts as those of a ``SeriesBatch`` without the batch."""

    past: Tensor
    future: Tensor
    known: Tensor | None = None
    static: Tensor | None = None
    dt: Tensor | None = None


class SeriesWindows(Dataset):
    """All windows, one step apart, whose future lies inside one part of its series.

    The past may reach into the part before, as in the published protocol; of the train part all of a window
    lies inside.
    """

    def __init__(self, series: list[Series], part: int, look_back: int, horizon: int) -> None:
        self.look_back, self.horizon = look_back, horizon
        # All series in one tensor, so that a batch is gathered at once.
        self.values = _tensor(np.concatenate([one.values for one in series]))
        # One of its own only where there are covariates: reading one tensor is the usual case.
        wide = any(one.observed is not None or one.known is not None for one in series)
        self.inputs = _tensor(np.concatenate([_beside(one) for one in series])) if wide else self.values
        first = series[0]
        self.known = None if first.known is None else _all([one.known for one in series])
        self.static = None if first.static is None else _all([one.static for one in series], np.stack)
        self.dt = None if first.dt is None else _all([one.dt for one in series])
        starts = [origins(one, part, look_back, horizon) for one in series]
        self.ends = np.cumsum([len(one) for one in starts])
        lengths = [len(one.values) for one in series]
        # Of each series, from the number of a window to its first future row.
        self.shifts = np.cumsum([0, *lengths[:-1]]) + [one.stop for one in starts] - self.ends

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> SeriesItem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(np.searchsorted(self.ends, index, side="right"))
        origin = index + int(self.shifts[which])
        before, ahead = slice(origin - self.look_back, origin), slice(origin, origin + self.horizon)
        return SeriesItem(*self._parts(before, ahead, which))

    def __getitems__(self, indices: list[int]) -> SeriesBatch:
        """Several windows as the batch that ``collate`` makes of them one by one, several times as fast."""
        index = np.asarray(indices)
        if len(index) and not 0 <= index.min() <= index.max() < len(self):
            raise IndexError(indices)
        which = np.searchsorted(self.ends, index, side="right")
        origin = (index + self.shifts[which])[:, None]
        before, ahead = origin + np.arange(-self.look_back, 0), origin + np.arange(self.horizon)
        return SeriesBatch(*self._parts(*map(torch.from_numpy, (before, ahead, which))))

    def _parts(self, before: Any, ahead: Any, which: Any) -> tuple[Any, ...]:
        return (
            self.inputs[before],
            self.values[ahead],
            None if self.known is None else self.known[ahead],
            None if self.static is None else self.static[which],
            None if self.dt is None else self.dt[before],
        )


def origins(series: Series, part: int, look_back: int, horizon: int) -> range:
    """The first future step of every window whose future lies in part 0, 1 or 2 of a series."""
    low = 0 if part == 0 else series.borders[part - 1]
    return range(max(low, look_back), max(low, look_back, series.borders[part] - horizon + 1))


def collate(items: list[SeriesItem] | SeriesBatch) -> SeriesBatch:
    """Windows to a batch (b, t, c); what is one already stays."""
    if isinstance(items, SeriesBatch):
        return items
    parts: list[Any] = [None if part[0] is None else torch.stack(part) for part in zip(*items, strict=True)]
    return SeriesBatch(*parts)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _given(values: np.ndarray | None) -> np.ndarray:
    """What one series has, where the first one has it."""
    if values is None:
        raise ValueError(
            "all series of a task have the same covariates; got some of the first one's that another lacks. "
            "Give them to every series, NaN where they are not known."
        )
    return values


def _all(parts: list[np.ndarray | None], join: Callable[..., np.ndarray] = np.concatenate) -> Tensor:
    """What all series have, in one tensor."""
    return _tensor(join([_given(part) for part in parts]))


def _beside(series: Series) -> np.ndarray:
    """What a forecast reads of a series: variates, then observed, then known covariates."""
    parts = [series.values, series.observed, series.known]
    return np.concatenate([part for part in parts if part is not None], 1)


def borders(rows: int, split: str | tuple[float, float, float], where: str) -> tuple[int, int, int]:
    """The rows at which train, validation and test end.

    "ett" and "ettm" are the months of the ETT files (12, 4 and 4 of 30 days, hourly or by quarter hours; what
    comes after is unused). Fractions "train/valid/test" cut as the public code does: train and test are
    rounded down, validation is what lies between.

    Raises:
        ValueError: no such split, fractions that do not add up to 1, or too few rows for the months.
    """
    if isinstance(split, str) and split in ("ett", "ettm"):
        month = 30 * 24 * (4 if split == "ettm" else 1)
        if rows < 20 * month:
            raise ValueError(
                f"{where}: the split {split!r} takes the first {20 * month} rows; there are {rows}. Name "
                f"fractions such as '0.7/0.1/0.2'."
            )
        return 12 * month, 16 * month, 20 * month
    parts = _fractions(split)
    train, test = int(rows * parts[0]), int(rows * parts[2])
    return train, rows - test, rows


def series_task(
    series: list[Series],
    name: str,
    where: str,
    details: dict[str, Any],
    *,
    look_back: int,
    horizon: int,
    season: int,
) -> Task:
    """The task of series that are split: windows, statistics of the train part, baselines.

    Raises:
        ValueError: a part that has no window, or a variate with no value to train on.
    """
    if look_back < 1 or horizon < 1 or season < 1:
        raise ValueError(
            f"look_back, horizon and season are 1 or more; got {look_back}, {horizon} and {season}. Correct "
            f"them."
        )
    sets = [SeriesWindows(series, part, look_back, horizon) for part in range(3)]
    for part, (words, windows) in enumerate(zip(("train", "validation", "test"), sets, strict=True)):
        if not len(windows):
            longest = max(
                one.borders[part] - (one.borders[part - 1] if part else look_back) for one in series
            )
            raise ValueError(
                f"{where}: a horizon of {horizon} behind a look-back of {look_back} fits nowhere into the "
                f"{words} part, which leaves room for {max(longest, 0)} steps to forecast. Give more rows, "
                f"or a shorter horizon or look-back."
            )
    known = np.concatenate([one.values[: one.borders[0]] for one in series])
    if np.isnan(known).all(0).any():
        column = int(np.flatnonzero(np.isnan(known).all(0))[0]) + 1
        raise ValueError(
            f"{where}: every variate needs a value to train on; variate {column} has none in the train part. "
            f"Leave it out of the targets."
        )
    location, scale = np.nanmean(known, 0), np.nanstd(known, 0)
    details = {
        **details,
        "series": len(series),
        "season": season,
        "windows": dict(zip(("train", "valid", "test"), map(len, sets), strict=True)),
        "missing": int(sum(np.isnan(one.values).sum() for one in series)),
    }
    if len(series) == 1:
        details["borders"] = list(series[0].borders)
    return Task(
        kind="forecasting",
        name=name,
        train=sets[0],
        valid=sets[1],
        test=sets[2],
        collate=collate,
        facts={
            "channels": known.shape[1],
            "look_back": look_back,
            "horizon": horizon,
            "location": location.tolist(),
            "scale": scale.tolist(),
            **covariate_facts(series),
        },
        tokenizer=None,
        details=details,
        naive=lambda: naive(series, look_back, horizon, season, location, scale),
    )


def covariate_facts(series: list[Series]) -> dict[str, Any]:
    """How many covariates there are of each kind, and their statistics over the train parts, for a model."""
    facts: dict[str, Any] = {}
    parts = []
    for name in ("observed", "known"):
        if getattr(series[0], name) is None:
            continue
        parts.append(np.concatenate([_given(getattr(one, name))[: one.borders[0]] for one in series]))
        facts[name] = parts[-1].shape[1]
    if parts:
        location, scale = _moments(np.concatenate(parts, 1))
        facts |= {"covariate_location": location, "covariate_scale": scale}
    if series[0].static is not None:
        fixed = np.stack([_given(one.static) for one in series])
        location, scale = _moments(fixed)
        facts |= {"static": fixed.shape[1], "static_location": location, "static_scale": scale}
    return facts


def _moments(values: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and deviation of each column; zero and one of a column that holds nothing."""
    seen = ~np.isnan(values)
    count = np.maximum(seen.sum(0), 1)
    location = np.where(seen, values, 0.0).sum(0) / count
    scale = np.sqrt(np.square(np.where(seen, values - location, 0.0)).sum(0) / count)
    return location.tolist(), np.where(seen.any(0), scale, 1.0).tolist()


def naive(
    series: list[Series], look_back: int, horizon: int, season: int, location: np.ndarray, scale: np.ndarray
) -> dict[str, dict[str, float]]:
    """Mean squared and absolute error of simple forecasts on the test windows, on scaled values.

    A missing value is filled with the one before it for the forecasts; errors count values that were seen.
    """
    spread = np.where(scale > 0, scale, 1.0)
    scaled = [one._replace(values=(one.values - location) / spread) for one in series]
    ahead = np.arange(horizon)

    def seasonal(one: Series, starts: np.ndarray) -> np.ndarray:
        return one.values[starts[:, None] - season + ahead % season]

    def repeat(one: Series, starts: np.ndarray) -> np.ndarray:
        return np.broadcast_to(one.values[starts - 1][:, None], (len(starts), horizon, one.values.shape[1]))

    def average(one: Series, starts: np.ndarray) -> np.ndarray:
        past = one.values[starts[:, None] - look_back + np.arange(look_back)]
        return np.broadcast_to(past.mean(1, keepdims=True), (len(starts), horizon, past.shape[2]))

    def zeros(one: Series, starts: np.ndarray) -> np.ndarray:
        return np.zeros((len(starts), horizon, one.values.shape[1]))

    forecasts: dict[str, Forecast] = {
        "repeat last": repeat,
        "look-back mean": average,
        "train mean": zeros,
    }
    first = min(
        origins(one, 2, look_back, horizon).start for one in series if len(_tests(one, look_back, horizon))
    )
    if 1 < season <= first:
        forecasts = {"seasonal naive": seasonal, **forecasts}
    return {name: _errors(scaled, forecast, look_back, horizon) for name, forecast in forecasts.items()}


def _errors(series: list[Series], forecast: Forecast, look_back: int, horizon: int) -> dict[str, float]:
    squared = absolute = count = 0.0
    for one in series:
        filled = one._replace(values=last_seen(one.values))
        for starts in _pieces(_tests(one, look_back, horizon)):
            target = one.values[starts[:, None] + np.arange(horizon)]
            error = forecast(filled, starts) - target
            error = error[~np.isnan(error)]
            squared += float(np.square(error).sum())
            absolute += float(np.abs(error).sum())
            count += error.size
    return {"mse": squared / max(count, 1), "mae": absolute / max(count, 1)}


def _tests(series: Series, look_back: int, horizon: int) -> range:
    return origins(series, 2, look_back, horizon)


def _pieces(starts: range, size: int = 256) -> Iterator[np.ndarray]:
    return (np.asarray(starts[low : low + size]) for low in range(0, len(starts), size))


def last_seen(values: np.ndarray) -> np.ndarray:
    """Each missing value (t, c) replaced by the last one before it; NaN where there is none."""
    if not np.isnan(values).any():
        return values
    last = np.where(np.isnan(values), -1, np.arange(len(values))[:, None])
    last = np.maximum.accumulate(last, 0)
    return np.where(last >= 0, np.take_along_axis(values, np.maximum(last, 0), 0), np.nan)


def _fractions(split: str | tuple[float, float, float]) -> tuple[float, float, float]:
    try:
        parts = tuple(
            float(part) for part in (re.split(r"[/,:]", split) if isinstance(split, str) else split)
        )
    except ValueError:
        parts = ()
    if len(parts) != 3 or min(parts) <= 0 or abs(sum(parts) - 1) > 1e-6:
        raise ValueError(
            f"a split is 'ett', 'ettm' or three positive fractions that add up to 1, such as '0.7/0.1/0.2'; "
            f"got {split!r}. Write it so."
        )
    return parts
