"""Series in CSV, Parquet or a data frame, in long form (unique_id, ds, y) or wide (a column a variate)."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hippodrome.data._panel import Panel, Reading, read_panel, table_of
from hippodrome.data._series import Series, borders, series_task
from hippodrome.data.base import Task

DEFAULT_SPLIT = (0.7, 0.1, 0.2)


def open_table(
    path: str | Path,
    *,
    look_back: int = 96,
    horizon: int = 96,
    split: str | tuple[float, float, float] | None = None,
    season: int | None = None,
    targets: list[str] | None = None,
    time: str | None = None,
    observed: list[str] | None = None,
    known: list[str] | None = None,
    static: list[str] | None = None,
    calendar: bool = False,
    irregular: bool = False,
    gaps: str = "refuse",
    frequencies: str = "one",
) -> Task:
    """A forecasting task from a CSV (``.csv``, ``.csv.gz``) or Parquet file.

    Long form has the columns ``unique_id``, ``ds`` and ``y``: each id is a series of one variate, split and
    windowed on its own. Anything else is wide: a column of stamps (or none) and a column of numbers for each
    variate, forecast together. Empty cells are missing values.

    Args:
        path: the file. One named ``ETTh*`` or ``ETTm*`` takes the published split of these data sets unless
            ``split`` says otherwise; ``details["split"]`` tells which was taken.
        look_back: steps of the past a forecast reads.
        horizon: steps to forecast.
        split: "ett", "ettm", or fractions for train, validation and test; None takes 0.7/0.1/0.2.
        season: steps of a season, for the seasonal naive baseline; None takes it from the stamps (24 for
            hours, 7 for days, 12 for months, ...).
        targets: columns to forecast; None takes all that have no other part (long form: ``y``).
        time: the column of stamps; None looks for it by name (ds, date, time, ...).
        observed: columns of covariates that are seen in the past alone.
        known: columns of covariates that are known ahead too.
        static: columns with one value a series: numbers, or categories, which become zeros and ones.
        calendar: whether the calendar of the stamps is known ahead too: hour, day of week, month and year, or
            what else fits the step, each scaled to [-0.5, 0.5].
        irregular: whether steps between rows differ. Each is told to the model, relative to their median, as
            ``dt`` and as a covariate that is known ahead.
        gaps: "refuse" rows that are absent, or "fill" rows of missing values in.
        frequencies: "one" step for all series, or "mixed", each its own.

    Raises:
        ValueError: one line that names file, row and column of what is wrong.
    """
    table, name = table_of(path)
    if split is None and re.match(r"ETT[hm]\d", name):
        split = "ettm" if name.startswith("ETTm") else "ett"
    reading = _reading(targets, time, observed, known, static, calendar, irregular, gaps, frequencies)
    return _task(read_panel(table, reading), look_back, horizon, split, season)


def open_frame(
    frame: Any,
    *,
    look_back: int = 96,
    horizon: int = 96,
    split: str | tuple[float, float, float] | None = None,
    season: int | None = None,
    targets: list[str] | None = None,
    time: str | None = None,
    observed: list[str] | None = None,
    known: list[str] | None = None,
    static: list[str] | None = None,
    calendar: bool = False,
    irregular: bool = False,
    gaps: str = "refuse",
    frequencies: str = "one",
    static_frame: Any = None,
) -> Task:
    """The same from a pandas data frame; arguments as in ``open_table``.

    ``static_frame`` has ``unique_id`` and a column for each further static covariate.
    """
    reading = _reading(targets, time, observed, known, static, calendar, irregular, gaps, frequencies)
    return _task(read_panel(frame, reading, static_frame), look_back, horizon, split, season)


def read_series(
    source: Any, *, targets: list[str] | None = None, time: str | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """All series of a file or data frame, unsplit: id -> (stamps (t,), values (t, c)), to forecast from.

    In wide form there is one, under the name of the file; without a column of stamps they count from 0.
    """
    panel = read_panel(source, Reading(targets=targets, time=time))
    pieces = [slice(low, high) for low, high in pairwise(panel.offsets.tolist())]
    return {
        key: (panel.times[piece], panel.values[piece]) for key, piece in zip(panel.ids, pieces, strict=True)
    }


def series_of(panel: Panel, cuts: np.ndarray) -> list[Series]:
    """The series of a panel one by one, ``cuts`` (n, 3) the rows at which their parts end."""
    ends = panel.offsets.tolist()
    return [
        Series(
            key,
            panel.values[low:high],
            tuple(cut),
            None if panel.observed is None else panel.observed[low:high],
            None if panel.known is None else panel.known[low:high],
            None if panel.static is None else panel.static[i],
            None if panel.dt is None else panel.dt[low:high],
        )
        for i, (key, low, high, cut) in enumerate(zip(panel.ids, ends, ends[1:], cuts.tolist(), strict=False))
    ]


def _reading(
    targets: list[str] | None,
    time: str | None,
    observed: list[str] | None,
    known: list[str] | None,
    static: list[str] | None,
    calendar: bool,
    irregular: bool,
    gaps: Any,
    frequencies: Any,
) -> Reading:
    columns = (tuple(observed or ()), tuple(known or ()), tuple(static or ()))
    return Reading(targets, time, *columns, calendar, irregular, gaps, frequencies)


def _task(
    panel: Panel,
    look_back: int,
    horizon: int,
    split: str | tuple[float, float, float] | None,
    season: int | None,
) -> Task:
    taken = DEFAULT_SPLIT if split is None else split
    cuts = np.array([borders(int(rows), taken, panel.where) for rows in panel.counts])
    details = {
        **panel_details(panel),
        "split": taken if isinstance(taken, str) else "/".join(f"{part:g}" for part in taken),
    }
    season = panel.usual.season if season is None else season
    return series_task(
        series_of(panel, cuts),
        panel.name,
        panel.where,
        details,
        look_back=look_back,
        horizon=horizon,
        season=season,
    )


def panel_details(panel: Panel) -> dict[str, Any]:
    """What a report says of a panel, and how another is read like it."""
    usual = panel.usual.name
    if panel.reading.time is None:
        usual = "rows, no stamps"
    elif (panel.rhythm.codes != panel.rhythm.usual).any():
        usual = ", ".join(panel.rhythm.found[i].name for i in np.unique(panel.rhythm.codes))
    return {
        "source": panel.where,
        "rows": len(panel.times),
        "variates": list(panel.reading.targets or ()),
        "sampling": usual,
        "long": panel.long,
        "reading": panel.reading.kept(),
    }
