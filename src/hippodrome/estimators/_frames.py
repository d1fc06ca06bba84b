"""Frames of a forecaster: what is known ahead in, forecasts by columns out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hippodrome.data import _clock
from hippodrome.data._panel import Panel, Reading, table_of
from hippodrome.data._table import Table, column, numbers, stamps
from hippodrome.data.base import fault, shown

if TYPE_CHECKING:
    import pandas


class Ahead(NamedTuple):
    """The steps after the end of each of n series: stamps (n, h), and what is known of them (n, h, k)."""

    times: np.ndarray
    known: np.ndarray | None


def endings(quantiles: Sequence[float], level: Sequence[int | float] | None = None) -> list[tuple[str, int]]:
    """What follows a name in the columns of a forecast, and the place of each in the model's outputs.

    Nothing, for the point; then -lo-80, -median, -hi-80 and so on, in the order of the quantiles. ``level``
    picks bands by their share in percent; the median stays.

    Raises:
        ValueError: a level that the model has no quantiles for.
    """
    names = [("", 0)]
    for place, quantile in enumerate(quantiles, 1):
        share = f"{abs(200 * quantile - 100):.6g}"
        end = "-median" if quantile == 0.5 else f"-lo-{share}" if quantile < 0.5 else f"-hi-{share}"
        names.append((end, place))
    if level is None:
        return names
    there = dict(names)
    for one in level:
        if f"-lo-{one:.6g}" not in there or f"-hi-{one:.6g}" not in there:
            shares = sorted({name[4:] for name in there if name.startswith("-lo-")}, key=float)
            raise ValueError(
                f"a band of {one:.6g} % lies between the quantiles {0.5 - one / 200:.6g} and "
                f"{0.5 + one / 200:.6g}, and this forecaster has "
                f"{'bands of ' + ', '.join(shares) + ' %' if shares else 'no bands'}. Take one of its own, "
                f"or fit with quantiles that hold these"
            )
    wanted = {f"-{side}-{one:.6g}" for one in level for side in ("lo", "hi")}
    return [(name, place) for name, place in names if name in ("", "-median") or name in wanted]


def frame_of(
    panel: Panel,
    times: np.ndarray,
    outputs: np.ndarray,
    model: str,
    columns: Sequence[tuple[str, int]],
    variates: Sequence[str],
) -> "pandas.DataFrame":
    """Forecasts (n, h, c, outputs) as a frame: long, ``unique_id, ds`` and columns named after the model, or
    wide, ``ds`` and columns named after the variates, as the panel was. A long frame of several variates has
    columns named after these.
    """
    import pandas

    n, h, c, _ = outputs.shape
    flat = outputs.reshape(n * h, c, -1)
    head: dict[str, Any] = {"unique_id": np.repeat(panel.keys, h)} if panel.long else {}
    head["ds"] = times.reshape(-1)
    names = [model] if panel.long and c == 1 else list(variates)
    body = {f"{name}{end}": flat[:, i, place] for i, name in enumerate(names) for end, place in columns}
    return pandas.DataFrame({**head, **body})


def ahead_of(panel: Panel, count: int, least: int, reading: Reading, future: Any) -> Ahead:
    """What is known of ``count`` steps after the end of each series.

    Args:
        panel: the series.
        count: steps that are asked for.
        least: steps that the model wants to be told of: those behind ``count`` are missing values.
        reading: of the frame that the model learned from.
        future: a data frame of stamps and covariates, or None.

    Raises:
        ValueError: covariates are needed and not given, or given and not known; rows are missing or double; a
            cell is no number.
    """
    table = None if future is None else table_of(future)[0]._replace(where="X_df")
    _check_future(reading, table)
    last = panel.times[panel.offsets[1:] - 1]
    times = _following(panel, last, count)
    rows = None
    if table is not None:
        series, when = _keys(table, panel, reading)
        if reading.irregular:
            times, rows = _given_stamps(table, panel, series, when, last, count)
        else:
            rows = _rows_at(table, panel, series, when, times)
    parts = []
    if reading.known:
        assert table is not None
        assert rows is not None
        parts.append(np.stack([_complete(table, name, rows) for name in reading.known], -1))
    if reading.calendar:
        names: Any = tuple(reading.calendar)  # type: ignore[arg-type]
        parts.append(_clock.calendar(times.reshape(-1), names).reshape(*times.shape, -1))
    if reading.irregular:
        steps = np.diff(times, axis=1, prepend=last[:, None]).astype(np.float64)
        parts.append(np.log(steps / (reading.step or 1.0))[..., None])
    if not parts:
        return Ahead(times, None)
    known = np.concatenate(parts, -1)
    missing = np.full((len(known), max(least - count, 0), known.shape[-1]), np.nan)
    return Ahead(times, np.concatenate([known, missing], 1))


def _following(panel: Panel, last: np.ndarray, count: int) -> np.ndarray:
    """The stamps (n, count) that follow by the sampling of each series."""
    if panel.reading.irregular:  # the usual step may be a fraction
        return _clock.ahead(panel.usual, last, count)
    times = np.empty((len(last), count), last.dtype)
    for code in np.unique(panel.rhythm.codes):
        which = panel.rhythm.codes == code
        times[which] = _clock.ahead(panel.rhythm.found[code], last[which], count)
    return times


def _check_future(reading: Reading, table: Table | None) -> None:
    if table is None:
        if reading.known:
            raise ValueError(
                f"this forecaster learned covariates that are known ahead ({_listed(reading.known)}): give "
                f"their future as X_df, a frame of stamps and these columns"
            )
        return
    if not reading.known and not reading.irregular:
        raise ValueError(
            "this forecaster learned no covariates that are known ahead, and got X_df. Leave it out, or fit "
            "with known=[...] of its columns"
        )
    learned = {*reading.known, *reading.observed, *reading.static, *(reading.targets or ())}
    learned |= {"unique_id", "y", "ds", reading.time or "ds", *(reading.levels or {})}
    other = [name for name in table.columns if name not in learned]
    if other:
        raise ValueError(
            f"X_df holds {_listed(other)}, which this forecaster did not learn; known ahead are "
            f"{_listed(reading.known) if reading.known else 'no columns'}. Drop the others, or fit with them"
        )


def _keys(table: Table, panel: Panel, reading: Reading) -> tuple[np.ndarray, np.ndarray]:
    """Of each row of X_df which series it is of (-1: none of the panel), and its stamp."""
    when = stamps(table, reading.time or "ds") if reading.time else np.arange(table.rows)
    if reading.time is None:  # rows without stamps: they follow one another
        when = when + panel.times[-1] + 1
    if when.dtype.kind != panel.times.dtype.kind and "M" in (when.dtype.kind, panel.times.dtype.kind):
        kinds = {"M": "dates"}
        raise fault(
            table.where,
            f"{kinds.get(panel.times.dtype.kind, 'numbers')} as the stamps of the series",
            kinds.get(when.dtype.kind, "numbers"),
            "Write both in one way.",
            column=reading.time,
        )
    if not panel.long:
        return np.zeros(table.rows, np.int64), when
    import pandas

    place = pandas.Index(panel.ids)
    return place.get_indexer(pandas.Index([str(key) for key in column(table, "unique_id")])), when


def _rows_at(
    table: Table, panel: Panel, series: np.ndarray, when: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """The row (n, h) of X_df for each stamp after each series."""
    import pandas

    n, h = times.shape
    own = np.flatnonzero(series >= 0)
    index = pandas.MultiIndex.from_arrays([series[own], when[own]])
    if not index.is_unique:
        row = int(own[np.flatnonzero(index.duplicated())[0]])
        raise fault(
            table.where, "one row a stamp", f"{_clock.said(when[row])} a second time", "Drop the duplicate.",
            row=row + 1,
        )  # fmt: skip
    wanted = pandas.MultiIndex.from_arrays([np.repeat(np.arange(n), h), times.reshape(-1)])
    rows = index.get_indexer(wanted)
    absent = np.flatnonzero(rows < 0)
    if len(absent):
        at = int(absent[0])
        of = f" of series {panel.ids[at // h]!r}" if panel.long else ""
        raise fault(
            table.where,
            f"a row for each of the {h} steps ahead{of}",
            f"none for {_clock.said(times.reshape(-1)[at])}",
            "Add it, or ask for fewer steps with h.",
        )
    return own[rows].reshape(n, h)


def _given_stamps(
    table: Table, panel: Panel, series: np.ndarray, when: np.ndarray, last: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of irregular series the first stamps (n, count) after each end that X_df has, and their rows."""
    times = np.empty((len(last), count), np.promote_types(last.dtype, when.dtype))
    rows = np.empty((len(last), count), np.int64)
    order = np.argsort(series, kind="stable")
    bounds = np.searchsorted(series[order], np.arange(len(last) + 1))
    for i, end in enumerate(last):
        own = order[bounds[i] : bounds[i + 1]]
        own = own[when[own] > end][:count]
        of = f" of series {panel.ids[i]!r}" if panel.long else ""
        if len(own) < count:
            raise fault(
                table.where, f"{count} rows with stamps after the end{of}", str(len(own)),
                "Add some, or ask for fewer steps with h.",
            )  # fmt: skip
        bad = np.flatnonzero(np.diff(when[own]).astype(np.float64) <= 0)
        if len(bad):
            at = int(own[bad[0] + 1])
            raise _clock.not_increasing(table, panel.reading.time or "ds", when[own[bad[0]]], when[at], at)
        times[i], rows[i] = when[own], own
    return times, rows


def _complete(table: Table, name: str, rows: np.ndarray) -> np.ndarray:
    """Some rows of a column of what is known ahead, none of them missing."""
    values = numbers(table, name)[rows]
    absent = np.isnan(values)
    if absent.any():
        row = int(rows[absent][0])
        raise fault(
            table.where, "a number, as the covariate is known ahead", shown(table.columns[name][row]),
            "Fill it in, or name it among the observed ones.", row=row + 1, column=name,
        )  # fmt: skip
    return values


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
