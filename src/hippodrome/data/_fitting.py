"""A panel as a task to fit a forecaster on: all of it but an end to choose by, short series too."""

from typing import Any

import numpy as np
from torch.utils.data import Subset

from hippodrome.data._panel import Panel
from hippodrome.data._series import Series, SeriesWindows, collate, covariate_facts
from hippodrome.data.base import Task
from hippodrome.data.tables import panel_details, series_of

MOST = 2000
"""Windows that are enough to choose weights by: of one series, and of all."""


def fit_task(panel: Panel, look_back: int | None, horizon: int, validation: float, scaler: str) -> Task:
    """The task of learning to forecast what comes after the end of each series.

    No statistic is taken of what the weights are chosen by, as errors there stand for those of the future.

    The last ``validation`` part of each series, a horizon at least and ``MOST`` windows at most, is what the
    best weights are chosen by, with ``MOST`` windows of all series; a series too short for that is learned
    from whole. Where no window of
    ``look_back`` and ``horizon`` fits into what is learned from, the left is filled with missing values. A
    series of ``horizon`` rows or fewer teaches nothing.

    Args:
        panel: the series, in raw units.
        look_back: None takes ``default_look_back``.
        horizon: steps to forecast.
        validation: share of each series; 0 learns from all and keeps the last weights.
        scaler: "local" scales each series by its own mean and deviation.

    Raises:
        ValueError: no series is longer than the horizon, or a variate has no value to learn from.
    """
    if horizon < 1 or (look_back is not None and look_back < 1) or not 0 <= validation < 1:
        raise ValueError(
            f"horizon and look_back are 1 or more and validation is a share below 1; got {horizon}, "
            f"{look_back} and {validation}. Correct them."
        )
    counts = panel.counts
    remarks = notes(panel, horizon)
    if counts.max() <= horizon:
        raise ValueError(
            f"{panel.where}: a horizon of {horizon} is learned from series of {horizon + 1} rows or more; "
            f"the longest has {counts.max()}. Give more rows, or a shorter horizon."
        )
    kept = np.zeros_like(counts)
    if validation > 0:
        kept = np.clip(np.floor(validation * counts).astype(np.int64), horizon, horizon + MOST)
        kept = np.where(counts - kept > horizon, kept, 0)
    learned = counts - kept
    if scaler == "local":
        panel = scaled(panel, *own_scales(panel, learned))
    back = default_look_back(learned, horizon) if look_back is None else look_back
    cuts = np.stack([learned, counts, counts], 1)
    series = [_padded(one, back, horizon) for one in series_of(panel, cuts) if one.borders[0] > horizon]
    sets = [SeriesWindows(series, part, back, horizon) for part in range(2)]
    few = Subset(sets[1], spread(len(sets[1]))) if len(sets[1]) > MOST else sets[1]
    location, scale = moments(panel, learned)
    details = {
        **panel_details(panel),
        "scaler": scaler,
        "series": len(panel.ids),
        "season": panel.usual.season,
        "windows": {"train": len(sets[0]), "valid": min(len(sets[1]), MOST)},
        "missing": int(np.isnan(panel.values).sum()),
        "notes": remarks,
    }
    return Task(
        kind="forecasting",
        name=panel.name,
        train=sets[0],
        valid=few,
        test=sets[1],
        collate=collate,
        facts={
            "channels": panel.values.shape[1],
            "look_back": back,
            "horizon": horizon,
            "location": location.tolist(),
            "scale": scale.tolist(),
            **covariate_facts(series),
        },
        tokenizer=None,
        details=details,
        naive=dict,
    )


def notes(panel: Panel, horizon: int) -> list[str]:
    """What somebody should know of the series before they believe a forecast: a sentence for those that are
    constant, and one for those that are too short to teach anything."""
    seen = ~np.isnan(panel.values)
    start = panel.offsets[:-1]
    lowest = np.minimum.reduceat(np.where(seen, panel.values, np.inf), start)
    highest = np.maximum.reduceat(np.where(seen, panel.values, -np.inf), start)
    names = list(panel.reading.targets or ())
    constant = [
        panel.ids[i] + ("" if len(names) < 2 else f" ({names[j]})")
        for i, j in zip(*np.nonzero(lowest == highest), strict=True)
    ]
    short = [panel.ids[i] for i in np.flatnonzero(panel.counts <= horizon)]
    found = []
    if constant:
        found.append(
            f"{_some(constant)} never changed: the forecast is about that value, its bands mean little."
        )
    if short:
        rows = f"{horizon} rows or fewer" if len(short) > 1 else f"{int(panel.counts.min())} rows"
        found.append(
            f"{_some(short)} {'have' if len(short) > 1 else 'has'} {rows}, no more than the horizon: nothing "
            f"is learned from {'them' if len(short) > 1 else 'it'}, and the forecast rests on other series."
        )
    return found


def _some(names: list[str], most: int = 3) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def spread(count: int) -> list[int]:
    """``MOST`` of so many windows, evenly spread."""
    return [(2 * i + 1) * count // (2 * MOST) for i in range(MOST)]


def default_look_back(rows: np.ndarray, horizon: int) -> int:
    """Four horizons, 96 steps at least and 512 at most.

    Where series are short, no more than half of them have in front of a horizon, and no more than half of
    what the longest has there, so that it gives more than one window.
    """
    room = rows[rows > horizon] - horizon
    return max(1, min(512, max(96, 4 * horizon), int(np.median(room)), int(room.max()) // 2))


def moments(panel: Panel, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (c,) of each variate over the first ``rows`` (n,) of all series.

    Raises:
        ValueError: a variate without a value there.
    """
    values = panel.values[_first(panel, rows)]
    absent = np.isnan(values).all(0)
    if absent.any():
        column = list(panel.reading.targets or ())[int(np.flatnonzero(absent)[0])]
        raise ValueError(
            f"{panel.where}: every variate needs a value to learn from; {column!r} has none. Leave it out of "
            f"the targets."
        )
    location, scale = np.nanmean(values, 0), np.nanstd(values, 0)
    return location, _sized(location, scale)


def own_scales(panel: Panel, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (n, c) of each series over all that was seen of it, or of its first ``rows`` (n,).

    The deviation of a constant series is its size, or one for a series of zeros, so that its bands are narrow
    beside it. Zero and one stand for a series of which nothing was seen.
    """
    seen = ~np.isnan(panel.values)
    if rows is not None:
        seen &= _first(panel, rows)[:, None]
    start = panel.offsets[:-1]
    count = np.maximum(np.add.reduceat(seen, start, dtype=np.int64), 1)
    location = np.add.reduceat(np.where(seen, panel.values, 0.0), start) / count
    off = np.where(seen, panel.values - np.repeat(location, panel.counts, axis=0), 0.0)
    scale = np.sqrt(np.add.reduceat(np.square(off), start) / count)
    return location, _sized(location, scale)


def scaled(panel: Panel, location: np.ndarray, scale: np.ndarray) -> Panel:
    """The panel with each series scaled by numbers of its own (n, c)."""
    counts = panel.counts
    values = (panel.values - np.repeat(location, counts, axis=0)) / np.repeat(scale, counts, axis=0)
    return panel._replace(values=values)


def before(panel: Panel, rows: np.ndarray) -> Panel:
    """The panel as it was when each series had ``rows`` (n,) rows; one that had none is left out."""
    kept = np.flatnonzero(rows > 0)
    part = _first(panel, rows)
    cut = {
        name: getattr(panel, name)[part]
        for name in ("times", "values", "observed", "known", "dt", "rows")
        if getattr(panel, name) is not None
    }
    return panel._replace(
        ids=[panel.ids[i] for i in kept],
        keys=panel.keys[kept],
        offsets=np.concatenate([[0], np.cumsum(rows[kept])]),
        static=None if panel.static is None else panel.static[kept],
        rhythm=panel.rhythm._replace(codes=panel.rhythm.codes[kept]),
        **cut,
    )


def _first(panel: Panel, rows: np.ndarray) -> np.ndarray:
    """Which rows of a panel are among the first ``rows`` (n,) of their series."""
    counts = panel.counts
    return np.arange(len(panel.times)) < np.repeat(panel.offsets[:-1] + rows, counts)


def _sized(location: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The deviation; of what is constant but for rounding its size, or one."""
    size = np.abs(location)
    constant = scale <= 1e-12 * size
    return np.where(constant, np.where(size > 0, size, 1.0), scale)


def _padded(one: Series, look_back: int, horizon: int) -> Series:
    """A series with missing rows on its left where else no window of it could be learned from."""
    learned = one.borders[0]
    if learned >= look_back + horizon:
        return one
    more = look_back - max(1, min(horizon, learned - horizon))

    def left(values: np.ndarray | None, filling: float = np.nan) -> Any:
        if values is None:
            return None
        return np.concatenate([np.full((more, *values.shape[1:]), filling), values])

    train, valid, test = one.borders
    return one._replace(
        values=left(one.values),
        borders=(train + more, valid + more, test + more),
        observed=left(one.observed),
        known=left(one.known),
        dt=left(one.dt, 1.0),
    )
