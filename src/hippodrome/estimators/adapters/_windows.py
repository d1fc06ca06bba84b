"""A forecasting task of arrays of any length, with nothing kept for a test: what adapters learn from."""

import numpy as np

from hippodrome.data._series import Series, SeriesWindows, collate, covariate_facts
from hippodrome.data.base import Task

_HELD = 0.1
"""Share of each series, its end, that the best weights are chosen by."""


def default_look_back(rows: int, horizon: int) -> int:
    """Four horizons, 96 at least and 512 at most, but half of what a series leaves before its last window."""
    return max(1, min(512, max(96, 4 * horizon), (rows - horizon) // 2))


def window_task(
    values: list[np.ndarray],
    known: list[np.ndarray] | None,
    look_back: int,
    horizon: int,
    source: str,
) -> Task:
    """All windows of series (t, c), with covariates (t, k) that are known ahead, as a task.

    A series shorter than a window is filled up with NaN on its left; one that has no row beyond the horizon
    teaches nothing and is left out. The last tenth of each series chooses the best weights, where what is in
    front of it still holds a window; where it does so in no series the windows that were learned choose.

    Raises:
        ValueError: no series is longer than the horizon, or a variate has no value at all.
    """
    long = [i for i, one in enumerate(values) if len(one) > horizon]
    if not long:
        raise ValueError(
            f"{source}: a horizon of {horizon} needs a series of more than as many steps to learn from; the "
            f"longest has {max((len(one) for one in values), default=0)}. Give more steps, or a shorter "
            f"horizon."
        )
    seen = np.concatenate([values[i] for i in long])
    empty = np.isnan(seen).all(0)
    if empty.any():
        which = int(np.flatnonzero(empty)[0]) + 1
        raise ValueError(
            f"{source}: every variate needs a value to learn from; variate {which} has none. Leave it out."
        )
    series = []
    for i in long:
        gap = max(0, look_back + horizon - len(values[i]))
        rows = gap + len(values[i])
        held = max(horizon, int(rows * _HELD))
        learned = rows - held if rows - held >= look_back + horizon else rows
        beside = None if known is None else _filled(known[i], gap)
        series.append(Series(str(i), _filled(values[i], gap), (learned, rows, rows), known=beside))
    train, valid = (SeriesWindows(series, part, look_back, horizon) for part in (0, 1))
    chosen = valid if len(valid) else train
    location, scale = np.nanmean(seen, 0), np.nanstd(seen, 0)
    return Task(
        kind="forecasting",
        name=source,
        train=train,
        valid=chosen,
        test=chosen,
        collate=collate,
        facts={
            "channels": seen.shape[1],
            "look_back": look_back,
            "horizon": horizon,
            "location": location.tolist(),
            "scale": scale.tolist(),
            **covariate_facts(series),
        },
        tokenizer=None,
        details={
            "source": source,
            "series": len(series),
            "windows": {"train": len(train), "valid": len(valid)},
        },
        naive=dict,
    )


def _filled(values: np.ndarray, gap: int) -> np.ndarray:
    """So many rows of NaN in front."""
    return np.concatenate([np.full((gap, values.shape[1]), np.nan), values])
