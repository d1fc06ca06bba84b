"""Tables of named columns, read strictly: a fault is one line that names file, row and column."""

import csv
import gzip
import io
import math
import zlib
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
            text = file.read()
    except UnicodeDecodeError as error:
        raise fault(
            path, "text in UTF-8", f"bytes that are not ({error.reason})", "Convert the file."
        ) from None
    except (EOFError, zlib.error) as error:
        raise fault(path, "a whole gzip file", f"one that is not ({error})", "Copy it again.") from None
    header = [name.strip() for name in header]
    split = _split if len(header) > 1 and '"' not in text else _split_quoted
    try:
        cells, counts = split(text, delimiter, len(header))
    except csv.Error as error:
        raise fault(path, "rows of CSV", f"one that is none ({error})", "Correct its quotes.") from None
    _check_header(path, header, bool(counts))
    for number, count in enumerate(counts, 1):
        if count != len(header):
            raise fault(
                path,
                f"{len(header)} cells as in the header",
                f"{count}",
                "Complete the row, or quote a cell that holds the separator.",
                row=number,
            )
    return Table(str(path), dict(zip(header, cells, strict=True)), len(counts))


def _split(text: str, delimiter: str, width: int) -> tuple[Sequence[Cells], list[int]]:
    """The columns of rows without quotes, and how many cells each row has: the columns mean nothing unless
    these are all ``width``. A list a row, as csv makes them, takes ten times as long.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1]:
        lines.pop()
    counts = [line.count(delimiter) + 1 if line else 0 for line in lines]
    cells = delimiter.join(lines).split(delimiter) if lines else []
    return [cells[i::width] for i in range(width)], counts


def _split_quoted(text: str, delimiter: str, width: int) -> tuple[Sequence[Cells], list[int]]:
    """The same where cells are quoted."""
    body = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    while body and not body[-1]:
        body.pop()
    counts = [len(row) for row in body]
    even = all(count == width for count in counts)
    return list(zip(*body, strict=True)) if even and body else [()] * width, counts


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
    if not (hasattr(frame, "iloc") and hasattr(frame, "columns")):
        raise fault(where, "a pandas data frame", f"a {type(frame).__name__}", "Make one.")
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
    """A column of stamps as datetime64[ns], or as int64 where all are whole numbers (20240131 is a date), or
    as float64 where all are numbers.

    Raises:
        ValueError: a cell that is neither, named by its row.
    """
    import pandas

    cells = column(table, name)
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "iuM":
        absent = np.flatnonzero(np.isnat(cells)) if cells.dtype.kind == "M" else np.zeros(0, np.int64)
        if len(absent):
            raise fault(
                table.where, "a stamp in every row", "none", "Fill it in, or drop the row.",
                row=int(absent[0]) + 1, column=name,
            )  # fmt: skip
        return _dates(table, name, cells) if cells.dtype.kind == "M" else cells.astype(np.int64)
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "f" and np.isfinite(cells).all():
        return cells.astype(np.int64) if (cells == np.floor(cells)).all() else cells.astype(np.float64)
    # Series that run side by side have the same stamps: each different text is read once.
    codes, different = pandas.factorize(np.asarray(cells, object), use_na_sentinel=False)
    return _read_stamps(table, name, [str(cell).strip() for cell in different], codes)[codes]


def _read_stamps(table: Table, name: str, texts: list[str], codes: np.ndarray) -> np.ndarray:
    """Stamps of texts, of which a column has those of ``codes``."""
    import pandas

    dated = all(len(text) == 8 and text.isdigit() and "1800" <= text[:4] < "2200" for text in texts)
    if not dated and all(text.lstrip("-").isdigit() for text in texts):
        return np.array([int(text) for text in texts])
    if not dated and all(_counted(text) for text in texts):
        counted = np.array([float(text) for text in texts])
        return counted.astype(np.int64) if (counted == np.floor(counted)).all() else counted
    for style in ("%Y%m%d",) if dated else ("ISO8601", None):
        parsed = pandas.to_datetime(pandas.Series(texts), format=style, errors="coerce", utc=True)
        if parsed.notna().all():
            return _dates(table, name, parsed.dt.tz_localize(None).to_numpy(), codes)
    bad = parsed.isna().to_numpy()
    row = int(np.flatnonzero(bad[codes])[0])
    raise fault(
        table.where, "a date and time like the rows before", shown(texts[codes[row]]),
        "Write dates as 2024-01-31 or 2024-01-31 12:00:00, all in one way.", row=row + 1, column=name,
    )  # fmt: skip


def nanoseconds(dates: np.ndarray) -> np.ndarray:
    """Dates as datetime64[ns], NaT where there is none or it is before 1678 or after 2262."""
    found = dates.astype("datetime64[ns]")
    return np.where(found.astype(dates.dtype) == dates, found, np.datetime64("NaT", "ns"))


def _dates(table: Table, name: str, dates: np.ndarray, codes: np.ndarray | None = None) -> np.ndarray:
    """Dates of which a column has those of ``codes``, or all in order."""
    found = nanoseconds(dates)
    far = np.flatnonzero(np.isnat(found if codes is None else found[codes]))
    if len(far):
        row = int(far[0])
        raise fault(
            table.where, "a date from 1678 to 2262", str(dates[row if codes is None else codes[row]])[:10],
            "Number the rows instead.", row=row + 1, column=name,
        )  # fmt: skip
    return found


def _counted(text: str) -> bool:
    """Whether a stamp is a number that is finite."""
    return is_number(text) and math.isfinite(float(text))


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
