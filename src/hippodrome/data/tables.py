"""Series in CSV, Parquet or a data frame, in long form (unique_id, ds, y) or wide (a column a variate)."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from hippodrome.data._series import Series, borders, series_task
from hippodrome.data._table import (
    Sampling,
    Table,
    column,
    from_frame,
    is_number,
    numbers,
    read_csv,
    read_parquet,
    sampling,
    stamps,
)
from hippodrome.data.base import Task, fault

TIME_NAMES = ("ds", "date", "time", "timestamp", "datetime", "year")
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
        targets: columns to forecast; None takes all (long form: ``y``).
        time: the column of stamps; None looks for it by name (ds, date, time, ...).

    Raises:
        ValueError: one line that names file, row and column of what is wrong.
    """
    path = Path(path)
    table = read_parquet(path) if path.suffix == ".parquet" else read_csv(path)
    name = path.name.split(".")[0]
    if split is None and re.match(r"ETT[hm]\d", name):
        split = "ettm" if name.startswith("ETTm") else "ett"
    return _task(table, name, look_back, horizon, split, season, targets, time)


def open_frame(
    frame: Any,
    *,
    look_back: int = 96,
    horizon: int = 96,
    split: str | tuple[float, float, float] | None = None,
    season: int | None = None,
    targets: list[str] | None = None,
    time: str | None = None,
) -> Task:
    """The same from a pandas data frame; arguments as in ``open_table``."""
    table = from_frame(frame)
    return _task(table, "data frame", look_back, horizon, split, season, targets, time)


def read_series(
    source: Any, *, targets: list[str] | None = None, time: str | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """All series of a file or data frame, unsplit: id -> (stamps (t,), values (t, c)), to forecast from.

    In wide form there is one, under the name of the file; without a column of stamps they count from 0.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        table = read_parquet(path) if path.suffix == ".parquet" else read_csv(path)
        name = path.name.split(".")[0]
    else:
        table, name = from_frame(source), "data frame"
    found, _, _ = _series(table, name, targets, time)
    return found


def _task(
    table: Table,
    name: str,
    look_back: int,
    horizon: int,
    split: str | tuple[float, float, float] | None,
    season: int | None,
    targets: list[str] | None,
    time: str | None,
) -> Task:
    found, names, even = _series(table, name, targets, time)
    taken = DEFAULT_SPLIT if split is None else split
    series = [
        Series(key, values, borders(len(values), taken, table.where)) for key, (_, values) in found.items()
    ]
    details = {
        "source": table.where,
        "rows": table.rows,
        "variates": names,
        "sampling": even.name,
        "split": taken if isinstance(taken, str) else "/".join(f"{part:g}" for part in taken),
    }
    season = even.season if season is None else season
    return series_task(
        series, name, table.where, details, look_back=look_back, horizon=horizon, season=season
    )


def _series(
    table: Table, name: str, targets: list[str] | None, time: str | None
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[str], Sampling]:
    if "unique_id" in table.columns:
        return _long(table, targets or ["y"], time or "ds")
    clock = _clock(table, time)
    names = targets or [key for key in table.columns if key != clock]
    if not names:
        raise fault(table.where, "a column of numbers", f"{clock!r} alone", "Add the values to forecast.")
    values = np.stack([numbers(table, key) for key in names], 1)
    if clock is None:
        return {name: (np.arange(table.rows), values)}, names, Sampling("rows, no stamps", 1)
    times = stamps(table, clock)
    return {name: (times, values)}, names, sampling(table, clock, times)


def _long(
    table: Table, names: list[str], time: str
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[str], Sampling]:
    keys = [str(key) for key in column(table, "unique_id")]
    times = stamps(table, time)
    values = np.stack([numbers(table, key) for key in names], 1)
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    found, evens = {}, {}
    for key, taken in rows.items():
        picked = np.array(taken)
        evens[key] = sampling(table, time, times[picked], picked)
        found[key] = (times[picked], values[picked])
    usual = next((even for even in evens.values() if even.name != "one row"), Sampling("one row", 1))
    for key, even in evens.items():
        if even.name not in (usual.name, "one row"):
            raise fault(
                table.where,
                f"one sampling for all series, {usual.name} as in the first",
                f"{even.name} in series {key!r}",
                "Split the file, or resample that series.",
                row=rows[key][0] + 1,
                column=time,
            )
    return found, names, usual


def _clock(table: Table, time: str | None) -> str | None:
    """The column of stamps: the one that was named, one with a usual name, or a first one of text."""
    if time is not None:
        column(table, time)
        return time
    for name in table.columns:
        if name.lower() in TIME_NAMES:
            return name
    first = next(iter(table.columns))
    cell = table.columns[first][0]
    return (
        first if not is_number(cell) and str(cell).strip() and any(c.isdigit() for c in str(cell)) else None
    )
