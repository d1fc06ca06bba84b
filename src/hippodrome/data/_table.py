"""Tables of named columns, read strictly: a fault is one line that names file, row and column."""

import csv
import gzip
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hippodrome.data.base import fault, shown

MISSING = frozenset({"", "na", "nan", "n/a", "null", "none", "-", "<na>"})
"""Cells, in any case, that stand for a missing value."""


Cells = Sequence[Any] | np.ndarray


class Table(NamedTuple):
    """Columns of equal length by name: cells as text where they come from CSV, else as they are stored."""

    where: str
    columns: dict[str, Cells]
    rows: int


class Sampling(NamedTuple):
    """The step from one row to the next, in words, and how many rows make a season."""

    name: str
    season: int


def read_csv(path: Path) -> Table:
    """A CSV file with a header line; ``;`` and tab are taken for the comma where the header has no comma.

    Raises:
        ValueError: an empty file, no header, two columns of one name, a row with more or fewer cells than the
            header, or bytes that are not UTF-8.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = next((mark for mark in ",;\t" if mark in first), ",")
            header = next(csv.reader([first], delimiter=delimiter), [])
            body = list(csv.reader(file, delimiter=delimiter))
    except UnicodeDecodeError as error:
        raise fault(
            path, "text in UTF-8", f"bytes that are not ({error.reason})", "Convert the file."
        ) from None
    header = [name.strip() for name in header]
    while body and not body[-1]:
        body.pop()
    _check_header(path, header, bool(body))
    for number, cells in enumerate(body, 1):
        if len(cells) != len(header):
            raise fault(
                path,
                f"{len(header)} cells as in the header",
                f"{len(cells)}",
                "Complete the row, or quote a cell that holds the separator.",
                row=number,
            )
    columns: dict[str, Cells] = dict(zip(header, zip(*body, strict=True), strict=True))
    return Table(str(path), columns, len(body))


def read_parquet(path: Path) -> Table:
    """A Parquet file, by pandas and pyarrow.

    Raises:
        ValueError: pyarrow is absent, the file cannot be read, or it has no rows.
    """
    import pandas

    try:
        frame = pandas.read_parquet(path)
    except ImportError:
        raise ValueError(
            f"{path}: reading Parquet needs pyarrow, which is not installed. Run `pip install "
            f"hippodrome[parquet]`, or convert the file to CSV."
        ) from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise fault(
            path, "a Parquet file", f"one that cannot be read ({reason})", "Write it again."
        ) from None
    return from_frame(frame, str(path))


def from_frame(frame: Any, where: str = "data frame") -> Table:
    """A table out of a pandas data frame; an index with a name, or of stamps, becomes a column.

    Raises:
        ValueError: it has no rows, or two columns of one name.
    """
    if frame.index.names != [None]:
        frame = frame.reset_index()
    elif frame.index.dtype.kind == "M":
        frame = frame.rename_axis("ds").reset_index()
    names = [str(name) for name in frame.columns]
    _check_header(where, names, len(frame) > 0, frame=True)
    return Table(where, {name: frame.iloc[:, i].to_numpy() for i, name in enumerate(names)}, len(frame))


def column(table: Table, name: str) -> Cells:
    """A column by its name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in table.columns:
        raise fault(
            table.where,
            f"a column {name!r}",
            f"columns {', '.join(map(repr, table.columns))}",
            "Rename a column, or name the one that is meant.",
        )
    return table.columns[name]


def numbers(table: Table, name: str) -> np.ndarray:
    """A column as float64, NaN where a value is missing.

    Raises:
        ValueError: a cell that is neither a finite number nor a mark for a missing value.
    """
    cells = column(table, name)
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "iufb":
        values = cells.astype(np.float64)
    else:
        try:
            values = np.fromiter(map(float, cells), np.float64, len(cells))
            if any("_" in cell for cell in cells if isinstance(cell, str)):
                raise ValueError
        except (ValueError, TypeError):
            values = np.array([_number(table, name, i, cell) for i, cell in enumerate(cells, 1)])
    endless = np.flatnonzero(np.isinf(values))
    if len(endless):
        raise fault(
            table.where, "a finite number", shown(cells[endless[0]]), "Correct the cell, or leave it empty.",
            row=int(endless[0]) + 1, column=name,
        )  # fmt: skip
    return values


def is_number(cell: object) -> bool:
    """Whether a cell holds a number."""
    try:
        float(cell)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return False
    return not (isinstance(cell, str) and "_" in cell)


def stamps(table: Table, name: str) -> np.ndarray:
    """A column of stamps as datetime64[ns], or as int64 where all are whole numbers (20240131 is a date).

    Raises:
        ValueError: a cell that is neither, named by its row.
    """
    import pandas

    cells = column(table, name)
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "iuM":
        return cells.astype("datetime64[ns]" if cells.dtype.kind == "M" else np.int64)
    texts = [str(cell).strip() for cell in cells]
    dated = all(len(text) == 8 and text.isdigit() and "1800" <= text[:4] < "2200" for text in texts)
    if not dated and all(text.lstrip("-").isdigit() for text in texts):
        return np.array([int(text) for text in texts])
    for style in ("%Y%m%d",) if dated else ("ISO8601", None):
        parsed = pandas.to_datetime(pandas.Series(texts), format=style, errors="coerce", utc=True)
        if parsed.notna().all():
            return parsed.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]")
    bad = int(np.flatnonzero(parsed.isna().to_numpy())[0])
    raise fault(
        table.where, "a date and time like the rows before", shown(texts[bad]),
        "Write dates as 2024-01-31 or 2024-01-31 12:00:00, all in one way.", row=bad + 1, column=name,
    )  # fmt: skip


def sampling(table: Table, name: str, times: np.ndarray, rows: np.ndarray | None = None) -> Sampling:
    """The even step of stamps in order; months, quarters, years and working days count as even.

    Args:
        table: for the error.
        name: the column, for the error.
        times: what ``stamps`` gave, of one series.
        rows: the row of each stamp in the file, counted from 0; None where they are all rows.

    Raises:
        ValueError: a stamp twice, one before its predecessor, or a step that differs from the others.
    """
    rows = np.arange(len(times)) if rows is None else rows
    if len(times) < 2:
        return Sampling("one row", 1)
    steps = np.diff(times).astype(np.int64)
    backward = np.flatnonzero(steps <= 0)
    if len(backward):
        at = int(backward[0]) + 1
        twice = steps[at - 1] == 0
        raise fault(
            table.where,
            "stamps that increase",
            f"{_said(times[at])} {'a second time' if twice else 'after ' + _said(times[at - 1])}",
            "Drop the duplicate." if twice else "Sort the rows by time.",
            row=int(rows[at]) + 1,
            column=name,
        )
    usual = Counter(steps.tolist()).most_common(1)[0][0]
    if (steps == usual).all():
        return _even(usual) if times.dtype.kind == "M" else Sampling(f"steps of {usual}", 1)
    if times.dtype.kind == "M":
        calendar = _months(times) or _working_days(times)
        if calendar is not None:
            return calendar
    at = int(np.flatnonzero(steps != usual)[0]) + 1
    said = _duration if times.dtype.kind == "M" else str
    raise fault(
        table.where,
        f"one step throughout, {said(usual)} as in most rows",
        f"{said(int(steps[at - 1]))} from {_said(times[at - 1])} to {_said(times[at])}",
        "Resample to an even step (missing values may stay empty), or remove the column of stamps.",
        row=int(rows[at]) + 1,
        column=name,
    )


def _check_header(where: str | Path, names: list[str], rows: bool, frame: bool = False) -> None:
    if not names or names == [""]:
        raise fault(where, "a header line and rows", "an empty file", "Name a file that holds data.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise fault(where, "a different name for each column", f"{twice[0]!r} twice", "Rename one of them.")
    if not frame and all(is_number(name) for name in names):
        raise fault(
            where,
            "names of columns in the first line",
            f"numbers ({', '.join(names[:3])})",
            "Add a header line.",
        )
    if not rows:
        raise fault(where, "rows of data", "a header alone", "Name a file that holds data.")


def _number(table: Table, name: str, row: int, cell: object) -> float:
    text = "" if cell is None else str(cell).strip()
    if text.lower() in MISSING:
        return float("nan")
    if not is_number(text):
        raise fault(
            table.where,
            "a number",
            shown(cell),
            "Correct the cell, leave it empty if it is missing, or leave the column out of the targets.",
            row=row,
            column=name,
        )
    return float(text)


def _even(step: int) -> Sampling:
    """Words and season of an even step in nanoseconds."""
    minute, day = 60 * 10**9, 86400 * 10**9
    if step % day == 0:
        return Sampling(_duration(step), {day: 7, 7 * day: 52}.get(step, 1))
    whole = minute if step < minute else day
    return Sampling(_duration(step), whole // step if step < whole and whole % step == 0 else 1)


def _months(times: np.ndarray) -> Sampling | None:
    months = times.astype("datetime64[M]").astype(np.int64)
    days = (times.astype("datetime64[D]") - times.astype("datetime64[M]").astype("datetime64[D]")).astype(int)
    last = (times.astype("datetime64[D]") + 1).astype("datetime64[M]").astype(np.int64) != months
    gaps = np.unique(np.diff(months))
    if len(gaps) != 1 or not gaps[0] or not (last.all() or (days == days[0]).all()):
        return None
    gap = int(gaps[0])
    return Sampling({1: "1 month", 3: "3 months", 12: "1 year"}.get(gap, f"{gap} months"), max(1, 12 // gap))


def _working_days(times: np.ndarray) -> Sampling | None:
    days = times.astype("datetime64[D]")
    even = (times == days).all() and np.is_busday(days).all()
    if even and (np.busday_count(days[:-1], days[1:]) == 1).all():
        return Sampling("1 working day", 5)
    return None


def _duration(step: int) -> str:
    """Nanoseconds in the largest unit that divides them."""
    for name, size in (
        ("day", 86400 * 10**9),
        ("hour", 3600 * 10**9),
        ("minute", 60 * 10**9),
        ("second", 10**9),
    ):
        if step % size == 0:
            return f"{step // size} {name}" + ("" if step == size else "s")
    return f"{step / 10**9:g} seconds"


def _said(time: Any) -> str:
    return str(time).replace("T", " ").split(".")[0]
