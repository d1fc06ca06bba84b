"""Many series read from one table: their stamps, values and covariates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from hippodrome.data import _clock
from hippodrome.data._clock import UNEVEN, Rhythm, Sampling
from hippodrome.data._static import Levels, static_columns
from hippodrome.data._table import (
    Table,
    column,
    from_frame,
    is_number,
    numbers,
    read_csv,
    read_parquet,
    stamps,
)
from hippodrome.data.base import fault, shown

MOST_ABSENT = 100
"""Rows for each that is there: more come of a wrong stamp."""

TIME_NAMES = ("ds", "date", "time", "timestamp", "datetime", "year")


class Reading(NamedTuple):
    """Which columns of a table are what, and what is made of its stamps.

    What is read from a table is written back here (names, calendar features, categories, the usual step), so
    that another table can be read the same way; ``kept()`` and ``again()`` take it through JSON.
    """

    targets: Sequence[str] | None = None
    """Columns to forecast; None takes ``y`` of a long table, all that are left of a wide one."""
    time: str | None = None
    """The column of stamps; None looks for it by name."""
    observed: Sequence[str] = ()
    """Columns of covariates that are seen in the past alone."""
    known: Sequence[str] = ()
    """Columns of covariates that are known ahead too."""
    static: Sequence[str] = ()
    """Columns with one value a series, numbers or categories."""
    calendar: bool | Sequence[str] = False
    """Whether the calendar of the stamps is known too, or which of its features."""
    irregular: bool = False
    """Whether steps differ, and are told to the model."""
    gaps: Literal["refuse", "fill"] = "refuse"
    """What to do with absent rows: "fill" puts rows of missing values there."""
    frequencies: Literal["one", "mixed"] = "one"
    """Whether all series have one step, or each its own."""
    levels: dict[str, Levels] | None = None
    """Of each static column its categories, or None where it holds numbers."""
    step: float | None = None
    """The usual step of irregular stamps."""
    sampling: Sequence[Any] | None = None
    """The usual sampling of even ones."""

    def kept(self) -> dict[str, Any]:
        """As JSON has it."""
        lists = {k: list(v) if isinstance(v, (tuple, list)) else v for k, v in self._asdict().items()}
        return {**lists, "levels": None if self.levels is None else dict(self.levels)}

    @classmethod
    def again(cls, kept: dict[str, Any]) -> "Reading":
        """Of what ``kept`` said."""
        return cls(**kept)

    @property
    def expected(self) -> Sampling | None:
        """The usual sampling."""
        return None if self.sampling is None else Sampling(*self.sampling)


class Panel(NamedTuple):
    """Series of one table, one after the other in one array of each kind."""

    where: str
    name: str
    ids: list[str]
    offsets: np.ndarray
    """Where each series begins, and the end of the last (n + 1,)."""
    times: np.ndarray
    """(rows,)"""
    values: np.ndarray
    """(rows, c), NaN where missing"""
    observed: np.ndarray | None
    """(rows, p)"""
    known: np.ndarray | None
    """(rows, k), those of the calendar last"""
    static: np.ndarray | None
    """(n, s), a column for each number and each category"""
    dt: np.ndarray | None
    """(rows,) the step in front of each row relative to the usual one, 1 in front of the first"""
    rhythm: Rhythm
    reading: Reading
    long: bool
    rows: np.ndarray
    """(rows,) where each row stands in the table, -1 of one that was put in"""
    keys: np.ndarray
    """(n,) the ids as the table has them, which may be numbers"""

    @property
    def usual(self) -> Sampling:
        """The sampling of most series."""
        return self.rhythm.found[self.rhythm.usual]

    @property
    def counts(self) -> np.ndarray:
        """Rows of each series."""
        return np.diff(self.offsets)


def read_panel(source: Any, reading: Reading, static: Any = None) -> Panel:
    """All series of a file, a data frame or a table.

    Args:
        source: a path, a pandas data frame, or a ``Table``.
        reading: which columns are what.
        static: a data frame with ``unique_id`` and a column for each static covariate; its columns are the
            static ones.

    Raises:
        ValueError: one line that names file, row and column of what is wrong.
    """
    table, name = table_of(source)
    _check(table, reading)
    long = "unique_id" in table.columns
    clock = reading.time or ("ds" if long else _clock_column(table))
    if long:
        codes, ids, keys = _ids(table)
    else:
        codes, ids, keys = np.zeros(table.rows, np.int64), [name], np.array([name], object)
    times = np.arange(table.rows) if clock is None else stamps(table, clock)
    order = np.argsort(codes, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(ids)))])
    times, label = times[order], clock or "row"
    _check_order(table, label, times, offsets, order)
    reading = reading._replace(time=clock, targets=_targets(table, reading, long, clock))
    found, levels = static_columns(
        table, reading.static, reading.levels, static, ids, order[offsets[:-1]], codes
    )
    take = order
    dt: np.ndarray | None = None
    if reading.irregular:
        beat, dt, reading = _irregular(times, offsets, reading)
    else:
        beat, times, offsets, take = _even(table, label, times, offsets, order, ids, reading)
        usual = beat.found[beat.usual]
        reading = reading._replace(sampling=list(usual) if usual.name != "one row" else reading.sampling)
    reading = reading._replace(levels=levels, calendar=_calendar(table, label, beat, times, reading))
    known = [_gathered(table, reading.known, take)] if reading.known else []
    if reading.calendar:
        known.append(_clock.calendar(times, tuple(reading.calendar)))  # type: ignore[arg-type]
    if dt is not None:
        known.append(np.log(dt)[:, None])
    return Panel(
        table.where,
        name,
        ids,
        offsets,
        times,
        _gathered(table, reading.targets or (), take),
        _gathered(table, reading.observed, take) if reading.observed else None,
        np.concatenate(known, 1) if known else None,
        found,
        dt,
        beat,
        reading,
        long,
        take,
        keys,
    )


def table_of(source: Any) -> tuple[Table, str]:
    """A table, and a name for what is in it."""
    if isinstance(source, Table):
        return source, Path(source.where).name.split(".")[0]
    if isinstance(source, (str, Path)):
        path = Path(source)
        return (read_parquet(path) if path.suffix == ".parquet" else read_csv(path)), path.name.split(".")[0]
    return from_frame(source), "data frame"


def _check(table: Table, reading: Reading) -> None:
    """Raise where the reading names something twice or asks for what there is not."""
    for option, value, words in (
        ("gaps", reading.gaps, ("refuse", "fill")),
        ("frequencies", reading.frequencies, ("one", "mixed")),
    ):
        if value not in words:
            raise ValueError(
                f"{table.where}: {option} is {words[0]!r} or {words[1]!r}; got {value!r}. Take one."
            )
    named = [*(reading.targets or ()), *reading.observed, *reading.known, *reading.static]
    twice = [name for name in named if named.count(name) > 1]
    if twice:
        raise ValueError(
            f"{table.where}: a column is a target, or observed, or known ahead, or static; {twice[0]!r} was "
            f"named twice. Name it once."
        )


def _ids(table: Table) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Of each row which series it is of, and the names of the series in the order of their first rows, as
    text and as they are."""
    import pandas

    codes, names = pandas.factorize(np.asarray(column(table, "unique_id")))
    absent = np.flatnonzero(codes < 0)
    ids = [str(name) for name in names]
    if len(absent) or len(set(ids)) < len(ids):
        row = int(absent[0]) if len(absent) else int(np.flatnonzero(codes == _second(ids))[0])
        came = "none" if len(absent) else f"{shown(ids[codes[row]])}, once as text and once as a number"
        raise fault(
            table.where, "a name of the series", came, "Name each series in one way.",
            row=row + 1, column="unique_id",
        )  # fmt: skip
    return codes.astype(np.int64), ids, np.asarray(names)


def _second(ids: list[str]) -> int:
    return next(i for i, one in enumerate(ids) if one in ids[:i])


def _targets(table: Table, reading: Reading, long: bool, clock: str | None) -> list[str]:
    if reading.targets:
        return list(reading.targets)
    if long:
        return ["y"]
    taken = {clock, *reading.observed, *reading.known, *reading.static}
    names = [name for name in table.columns if name not in taken]
    if not names:
        raise fault(table.where, "a column of numbers", f"{clock!r} alone", "Add the values to forecast.")
    return names


def _gathered(table: Table, names: Sequence[str], take: np.ndarray) -> np.ndarray:
    """Columns of numbers (rows, c), NaN in the rows that were put in."""
    values = np.stack([numbers(table, name) for name in names], 1)
    found = values[take]
    found[take < 0] = np.nan
    return found


def _check_order(table: Table, name: str, times: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> None:
    bad = _clock.unordered(times, offsets)
    if len(bad):
        at = int(bad[0])
        raise _clock.not_increasing(table, name, times[at - 1], times[at], int(rows[at]))


def _irregular(
    times: np.ndarray, offsets: np.ndarray, reading: Reading
) -> tuple[Rhythm, np.ndarray, Reading]:
    """The usual step, and how long each step is beside it."""
    dates = times.dtype.kind == "M"
    steps = np.diff(times, prepend=times[:1]).astype(np.int64 if dates else np.float64)
    inner = np.ones(len(times), bool)
    inner[offsets[:-1]] = False
    usual = reading.step
    if usual is None:
        usual = float(np.median(steps[inner])) if inner.any() else float(_clock.DAY if dates else 1)
    dt = np.where(inner, steps / usual, 1.0)
    size: Any = round(usual) if dates else usual
    one = Sampling("irregular stamps", 1, "step", size)
    return Rhythm(np.zeros(len(offsets) - 1, np.int64), [one], 0), dt, reading._replace(step=usual)


def _even(
    table: Table,
    name: str,
    times: np.ndarray,
    offsets: np.ndarray,
    rows: np.ndarray,
    ids: list[str],
    reading: Reading,
) -> tuple[Rhythm, np.ndarray, np.ndarray, np.ndarray]:
    """The rhythm of even stamps, and stamps, offsets and rows after absent ones were put in (rows: -1)."""
    if times.dtype.kind == "f":
        raise fault(
            table.where,
            "dates or whole numbers",
            f"{times[times != np.floor(times)][0]:g}",
            "Say irregular=True, or number the rows.",
            column=name,
        )
    beat = _clock.rhythm(times, offsets, reading.expected)
    broken = np.flatnonzero(beat.codes == UNEVEN)
    if len(broken):
        pieces = [slice(offsets[i], offsets[i + 1]) for i in broken]
        if reading.gaps != "fill":
            raise _clock.uneven(table, name, times[pieces[0]], rows[pieces[0]])
        usual = beat.found[beat.usual] if len(broken) < len(ids) else reading.expected
        times, offsets, rows = _filled(table, name, times, offsets, rows, broken, usual)
        beat = _clock.rhythm(times, offsets, reading.expected)
    other = np.flatnonzero(beat.codes != beat.usual)
    if len(other) and reading.frequencies == "one":
        at = int(other[0])
        raise fault(
            table.where,
            f"one sampling for all series, {beat.found[beat.usual].name} as in most",
            f"{beat.of(at).name} in series {ids[at]!r}",
            "Say frequencies='mixed', split the file, or resample that series.",
            row=int(rows[offsets[at]]) + 1,
            column=name,
        )
    return beat, times, offsets, rows


def _filled(
    table: Table,
    name: str,
    times: np.ndarray,
    offsets: np.ndarray,
    rows: np.ndarray,
    broken: np.ndarray,
    usual: Sampling | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stamps, offsets and rows with a row for each stamp that was absent."""
    kept_times = np.split(times, offsets[1:-1])
    kept_rows = np.split(rows, offsets[1:-1])
    for i in broken:
        found = _clock.filled(kept_times[i], usual)
        if found is None:
            raise _clock.uneven(table, name, kept_times[i], kept_rows[i])
        sampling, place = found
        if place[-1] > MOST_ABSENT * len(place):
            raise fault(
                table.where,
                f"gaps of a step of {sampling.name}, to be filled",
                f"{place[-1] + 1 - len(place)} absent rows beside {len(place)} that are there",
                "Correct the stamps, or resample to a longer step.",
                row=int(kept_rows[i][0]) + 1,
                column=name,
            )
        whole = np.full(int(place[-1]) + 1, -1)
        whole[place] = kept_rows[i]
        kept_times[i] = _clock.ahead(sampling, kept_times[i][:1], len(whole), start=0)[0]
        kept_rows[i] = whole
    ends = np.cumsum([len(one) for one in kept_rows])
    return np.concatenate(kept_times), np.concatenate([[0], ends]), np.concatenate(kept_rows)


def _calendar(
    table: Table, name: str, beat: Rhythm, times: np.ndarray, reading: Reading
) -> bool | Sequence[str]:
    """Which calendar features there are: those of the finest sampling."""
    if reading.calendar is False:
        return False
    if times.dtype.kind != "M":
        raise fault(
            table.where, "dates, for the features of their calendar", "numbers",
            "Leave calendar out, or give a column of dates.", column=name,
        )  # fmt: skip
    if reading.calendar is not True:
        return list(reading.calendar)
    chosen: list[tuple[str, ...]] = [_clock.features(beat.found[code]) for code in np.unique(beat.codes)]
    return list(sorted(chosen, key=len)[-1])


def _clock_column(table: Table) -> str | None:
    """The column of stamps: one with a usual name, or a first one of text."""
    for name in table.columns:
        if name.lower() in TIME_NAMES:
            return name
    first = next(iter(table.columns))
    cell = table.columns[first][0]
    return (
        first if not is_number(cell) and str(cell).strip() and any(c.isdigit() for c in str(cell)) else None
    )
