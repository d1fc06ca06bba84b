"""Tables of states over time, read as trajectories at an even step, for the identification of laws."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from hippodrome.data._table import Table, column, is_number, numbers, read_csv, read_parquet, stamps
from hippodrome.data.base import fault, shown

TIMES = ("ds", "date", "time", "timestamp", "datetime", "t")
"""Names, in any case, of a column that is taken for the time."""

UNEVEN = 0.01
"""By this share of itself a step may differ from the usual one: stamps are written with few digits."""


class Trajectories(NamedTuple):
    """States (t, c) of each trajectory in float64, the names of the c states, and the time between rows.

    ``unit`` says what the step counts: "seconds" of dates, "units" of a column of numbers or of what was
    given, "rows" where nothing was.
    """

    paths: list[np.ndarray]
    names: list[str]
    dt: float
    unit: str


def read_trajectories(
    path: str | Path, *, columns: list[str] | None = None, time: str | None = None, dt: float | None = None
) -> Trajectories:
    """The trajectories of a CSV (``.csv``, ``.csv.gz``) or Parquet file: a column a state, a row a time.

    Rows of one ``unique_id``, where there is such a column, are one trajectory; else all rows are.

    Args:
        path: the file.
        columns: the states; None takes all but the time and ``unique_id``.
        time: the column of times; None looks for it by its name (t, time, ds, date, ...).
        dt: time between rows, in place of what the column says.

    Raises:
        ValueError: one line that names file, row and column: no such file or column, no state, a cell that
            is no number or missing, times that do not increase by one step, a dt that is not positive.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"there is no file {str(path)!r} to read states from")
    if dt is not None and not (np.isfinite(dt) and dt > 0):
        raise ValueError(f"the time between rows is a positive number; got {dt:g}. Give one.")
    table = read_parquet(path) if path.suffix == ".parquet" else read_csv(path)
    if time is not None:
        column(table, time)
    clock = time or next((name for name in table.columns if name.lower() in TIMES), None)
    names = columns or [name for name in table.columns if name not in (clock, "unique_id")]
    if not names:
        raise fault(path, "a column of states", f"{clock!r} alone", "Add a column of numbers for each.")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{path}: a column is one state; {twice[0]!r} was named twice. Name it once.")
    states = np.stack([_complete(table, name) for name in names], 1)
    rows = _rows(table)
    if dt is not None:
        return Trajectories([states[one] for one in rows], names, float(dt), "units")
    if clock is None:
        return Trajectories([states[one] for one in rows], names, 1.0, "rows")
    times, unit = _times(table, clock)
    return Trajectories([states[one] for one in rows], names, _step(table, clock, times, rows), unit)


def _complete(table: Table, name: str) -> np.ndarray:
    values = numbers(table, name)
    missing = np.flatnonzero(np.isnan(values))
    if len(missing):
        raise fault(
            table.where,
            "a number in each row",
            "a missing one",
            "Fill it in (hippodrome impute does), or cut the trajectory there.",
            row=int(missing[0]) + 1,
            column=name,
        )
    return values


def _rows(table: Table) -> list[np.ndarray]:
    """The rows of each trajectory, in the order of the file."""
    if "unique_id" not in table.columns:
        return [np.arange(table.rows)]
    found: dict[str, list[int]] = {}
    for row, key in enumerate(column(table, "unique_id")):
        found.setdefault(str(key), []).append(row)
    return [np.array(one) for one in found.values()]


def _times(table: Table, clock: str) -> tuple[np.ndarray, str]:
    """Numbers as they are, dates in seconds."""
    cells = column(table, clock)
    if all(is_number(cell) for cell in cells) and getattr(cells, "dtype", np.dtype(object)).kind != "M":
        return numbers(table, clock), "units"
    return stamps(table, clock).astype(np.int64) / 1e9, "seconds"


def _step(table: Table, clock: str, times: np.ndarray, rows: list[np.ndarray]) -> float:
    steps = [np.diff(times[one]) for one in rows]
    every = np.concatenate(steps) if steps else np.zeros(0)
    if not len(every):
        raise fault(table.where, "two rows of a trajectory or more", "one", "Give more rows.")
    usual = float(np.median(every))
    for one, own in zip(rows, steps, strict=True):
        bad = np.flatnonzero(~((own > 0) & (np.abs(own - usual) <= UNEVEN * abs(usual))))
        if len(bad):
            at = int(bad[0])
            said = shown(column(table, clock)[one[at + 1]])
            raise fault(
                table.where,
                f"times that increase by one step, {usual:g} as in most rows",
                f"a step of {own[at]:g} to {said}",
                "Sort the rows, give a unique_id to each trajectory, or resample.",
                row=int(one[at + 1]) + 1,
                column=clock,
            )
    return usual
