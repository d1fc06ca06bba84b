"""What does not change of a series: numbers as they are, categories as a column of zeros and ones each."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hippodrome.data._table import MISSING, Cells, Table, column, from_frame, is_number, numbers
from hippodrome.data.base import fault, shown

Levels = list[str] | None
"""The categories of a column in order; None for a column of numbers."""


def static_columns(
    table: Table,
    names: Sequence[str],
    levels: dict[str, Levels] | None,
    frame: Any,
    ids: list[str],
    firsts: np.ndarray,
    codes: np.ndarray,
) -> tuple[np.ndarray | None, dict[str, Levels] | None]:
    """The static covariates (n, s) of each series, and the categories of each column.

    Args:
        table: of the series.
        names: its static columns.
        levels: the categories that are known already; None takes those that are there.
        frame: a data frame with ``unique_id`` and further static columns, or None.
        ids: the names of the series.
        firsts: the first row of each in the table.
        codes: which series each row of the table is of.

    Raises:
        ValueError: a value that changes in a series, a series without a row in the frame or with two, a
            category that is not among those known, a column that is missing.
    """
    import pandas

    found: dict[str, tuple[Table, Cells]] = {}
    beside, at = (None, firsts) if frame is None else _rows_of(frame, table, ids)
    for name in names if levels is None else levels:
        if beside is not None and name in beside.columns:
            cells: Any = np.asarray(beside.columns[name], object)[at]
            found[name] = (beside, cells)
            continue
        if name not in table.columns:
            raise fault(
                table.where,
                f"the static column {name!r}",
                f"columns {', '.join(map(repr, table.columns))}",
                "Give it there, or in static_df.",
            )
        cells = np.asarray(table.columns[name], object)
        kinds, _ = pandas.factorize(cells)
        changed = np.flatnonzero(kinds != kinds[firsts][codes])
        if len(changed):
            row = int(changed[0])
            raise fault(
                table.where,
                f"one value of a static column throughout series {ids[codes[row]]!r}",
                f"{shown(cells[row])} after {shown(cells[firsts[codes[row]]])}",
                "Name it among the observed or the known ones instead.",
                row=row + 1,
                column=name,
            )
        found[name] = (table, cells[firsts])
    if beside is not None and levels is None:
        for name in beside.columns:
            if name != "unique_id" and name not in found:
                found[name] = (beside, np.asarray(beside.columns[name], object)[at])
    if not found:
        return None, None
    learned = {name: None if levels is None else levels[name] for name in found}
    parts = []
    for name, (where, cells) in found.items():
        if levels is None and not all(is_number(cell) or _absent(cell) for cell in cells):
            learned[name] = sorted({str(cell).strip() for cell in cells if not _absent(cell)})
        chosen = learned[name]
        one = Table(where.where, {name: cells}, len(cells))
        parts.append(numbers(one, name)[:, None] if chosen is None else _one_hot(one, name, chosen, ids))
    return np.concatenate(parts, 1), learned


def _absent(cell: object) -> bool:
    return cell is None or str(cell).strip().lower() in MISSING


def _one_hot(table: Table, name: str, levels: list[str], ids: list[str]) -> np.ndarray:
    """A column of zeros and ones for each category; of a missing one zeros."""
    place = {level: i for i, level in enumerate(levels)}
    found = np.zeros((table.rows, len(levels)))
    for i, cell in enumerate(table.columns[name]):
        if _absent(cell):
            continue
        text = str(cell).strip()
        if text not in place:
            raise fault(
                table.where,
                f"one of the categories learned, {', '.join(map(repr, levels[:5]))}"
                f"{' ...' if len(levels) > 5 else ''}",
                f"{shown(text)} of series {ids[i]!r}",
                "Leave it empty where it is none of them, or fit on series that have it.",
                column=name,
            )
        found[i, place[text]] = 1
    return found


def _rows_of(frame: Any, table: Table, ids: list[str]) -> tuple[Table, np.ndarray]:
    """The table of a frame of static covariates, and its row of each series."""
    beside = from_frame(frame, "static_df")
    if "unique_id" not in table.columns and "unique_id" not in beside.columns and beside.rows == 1:
        return beside, np.zeros(1, np.int64)
    keys = [str(key) for key in column(beside, "unique_id")]
    place = {key: row for row, key in enumerate(keys)}
    if len(place) < len(keys):
        row = next(row for row, key in enumerate(keys) if place[key] != row)
        raise fault(
            beside.where, "one row a series", f"several of {shown(keys[row])}", "Drop all but one.",
            row=place[keys[row]] + 1, column="unique_id",
        )  # fmt: skip
    absent = [key for key in ids if key not in place]
    if absent:
        raise fault(
            beside.where, "a row for every series", f"none for {shown(absent[0])}",
            "Add it; cells may stay empty.", column="unique_id",
        )  # fmt: skip
    return beside, np.array([place[key] for key in ids])
