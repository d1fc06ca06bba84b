"""Stamps of many series at once: the even step each keeps, what follows, what is absent, the calendar."""

from collections import Counter
from typing import Any, Literal, NamedTuple

import numpy as np

from hippodrome.data._table import Table
from hippodrome.data.base import fault

MINUTE, HOUR, DAY = 60 * 10**9, 3600 * 10**9, 86400 * 10**9
UNEVEN = -1

Unit = Literal["step", "month", "month end", "working day"]


class Sampling(NamedTuple):
    """The step from one row to the next, in words, and how many rows make a season.

    ``size`` counts units: nanoseconds of dates and whole numbers of counted rows where the unit is "step",
    months or working days else.
    """

    name: str
    season: int
    unit: Unit = "step"
    size: int = 1


class Rhythm(NamedTuple):
    """The samplings of n series: which of ``found`` each has (``UNEVEN`` for none), and the usual one."""

    codes: np.ndarray
    found: list[Sampling]
    usual: int

    def of(self, series: int) -> Sampling:
        """The sampling of a series that has one."""
        return self.found[int(self.codes[series])]


class _Fits(NamedTuple):
    """What each of n series could be sampled by; zero where a unit does not fit."""

    even: np.ndarray
    months: np.ndarray
    ends: np.ndarray
    working: np.ndarray
    rows: np.ndarray

    def fit(self, one: Sampling) -> np.ndarray:
        """Which series a sampling fits; what has a single row fits any."""
        if one.unit == "step":
            found = self.even == one.size
        elif one.unit == "working day":
            found = self.working
        else:
            found = (self.months == one.size) & (self.ends == (one.unit == "month end"))
        return found | (self.rows < 2)


def rhythm(times: np.ndarray, offsets: np.ndarray, expected: Sampling | None = None) -> Rhythm:
    """How each series is sampled: months, quarters, years and working days count as even.

    A short series may fit several samplings (three first days of months may be 31 days apart); it gets the
    one that fits most series, ``expected`` before all others.

    Args:
        times: stamps of all series, one series after the other.
        offsets: where they begin, and the end of the last (n + 1,).
        expected: a sampling that is known from elsewhere.
    """
    fits = _fits(times, offsets)
    long = fits.rows > 1
    votes: list[tuple[int, Sampling]] = []
    if expected is not None and fits.fit(expected).any():
        votes.append((len(long) + 1, expected))
    for months, end in _seen(np.stack([fits.months, fits.ends], 1)[long & (fits.months > 0)]):
        one = _months(int(months), bool(end))
        votes.append((int((fits.fit(one) & long).sum()), one))
    for size in _seen(fits.even[long & (fits.even > 0)][:, None]):
        one = _even(int(size[0]), times.dtype.kind == "M")
        votes.append((int((fits.fit(one) & long).sum()), one))
    if (fits.working & long).any():
        one = Sampling("1 working day", 5, "working day", 1)
        votes.append((int((fits.working & long).sum()), one))
    if not votes:
        single = Sampling("one row", 1, "step", DAY if times.dtype.kind == "M" else 1)
        return Rhythm(np.where(long, UNEVEN, 0), [single], 0)
    # The most common first; each series takes the first that fits it.
    order = sorted(range(len(votes)), key=lambda i: (-votes[i][0], i))
    usual, *others = [votes[i][1] for i in order]
    others.sort(key=lambda one: ("month" not in one.unit, one.unit != "step"))
    found = [usual, *others]
    codes = np.full(len(long), UNEVEN)
    for code in reversed(range(len(found))):
        codes[fits.fit(found[code])] = code
    return Rhythm(codes, found, 0)


def ahead(sampling: Sampling, last: np.ndarray, count: int, start: int = 1) -> np.ndarray:
    """The stamps (n, count) that follow the stamps ``last`` (n,), the first of them ``start`` steps on."""
    steps = np.arange(start, start + count)
    if last.dtype.kind != "M":
        return last[:, None] + steps * sampling.size
    if sampling.unit == "step":
        return last[:, None] + (steps * sampling.size).astype("timedelta64[ns]")
    days = last.astype("datetime64[D]")
    if sampling.unit == "working day":
        return np.busday_offset(days[:, None], steps).astype("datetime64[ns]")
    months = last.astype("datetime64[M]")
    first = months[:, None] + steps * sampling.size
    longest = ((first + 1).astype("datetime64[D]") - first.astype("datetime64[D]")).astype(np.int64)
    if sampling.unit == "month end":
        day = longest - 1
    else:
        day = np.minimum((days - months.astype("datetime64[D]")).astype(np.int64)[:, None], longest - 1)
    clock = (last - days.astype("datetime64[ns]"))[:, None]
    return (first.astype("datetime64[D]") + day).astype("datetime64[ns]") + clock


def filled(times: np.ndarray, expected: Sampling | None = None) -> tuple[Sampling, np.ndarray] | None:
    """The sampling of increasing stamps some of which are absent, and the place of each among all; else None.

    The step is the most common one. Months come before days, and days of the week before all days where no
    row is on a weekend, unless ``expected`` says which.
    """
    count = np.array([0, len(times)])
    tries: list[tuple[Sampling, np.ndarray]] = []
    if times.dtype.kind == "M":
        days, months = times.astype("datetime64[D]"), times.astype("datetime64[M]").astype(np.int64)
        gaps = np.diff(months)
        if len(gaps) and (gaps > 0).all():
            fits = _calendar(times, count, np.arange(len(times)) > 0)
            if fits[2][0] or fits[3][0]:
                gap = _common(gaps)
                tries.append((_months(gap, bool(fits[2][0])), months - months[0]))
        weekly = _common(np.diff(times).astype(np.int64)) == DAY
        if weekly and (times == days).all() and np.is_busday(days).all():
            place = np.concatenate([[0], np.cumsum(np.busday_count(days[:-1], days[1:]))])
            tries.append((Sampling("1 working day", 5, "working day", 1), place))
    steps = np.diff(times).astype(np.int64)
    tries.append((_even(_common(steps), times.dtype.kind == "M"), np.concatenate([[0], np.cumsum(steps)])))
    if expected is not None:
        tries.sort(key=lambda one: one[0] != expected)
    for sampling, place in tries:
        if (place % sampling.size == 0).all():
            return sampling, place // sampling.size
    return None


def unordered(times: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Rows whose stamp does not come after the one before it in their series."""
    bad = np.zeros(len(times), bool)
    bad[1:] = times[1:] <= times[:-1]
    bad[offsets[:-1]] = False
    return np.flatnonzero(bad)


def not_increasing(table: Table, name: str, before: Any, stamp: Any, row: int) -> ValueError:
    """The error of a stamp that stands twice, or behind a later one."""
    twice = before == stamp
    return fault(
        table.where,
        "stamps that increase",
        f"{said(stamp)} {'a second time' if twice else 'after ' + said(before)}",
        "Drop the duplicate." if twice else "Sort the rows by time.",
        row=row + 1,
        column=name,
    )


def uneven(table: Table, name: str, times: np.ndarray, rows: np.ndarray) -> ValueError:
    """The error of a series without an even step: where a row is absent, or else a step differs."""
    found = filled(times)
    if found is None:
        steps = np.diff(times).astype(np.int64)
        usual = _common(steps)
        sampling, jumps, unit = _even(usual, times.dtype.kind == "M"), steps, usual
        remedy = "Say irregular=True where steps truly differ, resample to an even step, or remove the column"
    else:
        sampling, place = found
        jumps, unit = np.diff(place) * sampling.size, sampling.size
        remedy = "Say gaps='fill' for rows of missing values there, add them, or remove the column"
    at = int(np.flatnonzero(jumps != unit)[0]) + 1
    return fault(
        table.where,
        f"one step throughout, {sampling.name} as in most rows",
        f"{_many(sampling, int(jumps[at - 1]), times)} from {said(times[at - 1])} to {said(times[at])}",
        f"{remedy} of stamps.",
        row=int(rows[at]) + 1,
        column=name,
    )


def _many(sampling: Sampling, size: int, times: np.ndarray) -> str:
    """A step of another size in the words of a sampling."""
    if sampling.unit == "working day":
        return f"{size} working days"
    if sampling.unit != "step":
        return _months(size, False).name
    return _duration(size) if times.dtype.kind == "M" else str(size)


def said(time: Any) -> str:
    """A stamp in words."""
    return str(time).replace("T", " ").split(".")[0]


CALENDAR = ("second", "minute", "hour", "weekday", "day", "yearday", "week", "month")


def features(sampling: Sampling) -> tuple[str, ...]:
    """What a calendar can say of the stamps of a sampling, as the public protocol chooses it.

    Of steps below a day what lies between the step and the day, and day of week, month and year; of weeks
    day of month and week of year; of months and quarters the month; of years nothing.
    """
    if sampling.unit in ("month", "month end"):
        return ("month",) if sampling.size < 12 else ()
    if sampling.unit == "step" and sampling.size >= 7 * DAY:
        return ("day", "week")
    days = ("weekday", "day", "yearday")
    if sampling.unit == "working day" or sampling.size >= DAY:
        return days
    inner = ["hour"]
    if sampling.size < HOUR:
        inner.insert(0, "minute")
    if sampling.size < MINUTE:
        inner.insert(0, "second")
    return (*inner, *days)


def calendar(times: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Calendar features (t, k) of dates, each scaled to [-0.5, 0.5] as the public protocol has them.

    Hour / 23 - 0.5, and so minute and second by 59, day of week by 6, day of month by 30, day of year by 365,
    week of year by 52, month by 11, all counted from 0 (Zhou et al. 2021, arXiv 2012.07436, code).
    """
    days, months = times.astype("datetime64[D]"), times.astype("datetime64[M]")
    clock = (times - days).astype(np.int64)
    columns = []
    for name in names:
        if name in ("second", "minute", "hour"):
            unit, top = {"second": (10**9, 60), "minute": (MINUTE, 60), "hour": (HOUR, 24)}[name]
            columns.append(clock // unit % top / (top - 1))
        elif name == "weekday":
            columns.append((days.astype(np.int64) + 3) % 7 / 6)  # 1970 began on a Thursday
        elif name == "day":
            columns.append((days - months.astype("datetime64[D]")).astype(np.int64) / 30)
        elif name == "yearday":
            years = times.astype("datetime64[Y]").astype("datetime64[D]")
            columns.append((days - years).astype(np.int64) / 365)
        elif name == "week":
            columns.append(_weeks(days) / 52)
        else:
            columns.append(months.astype(np.int64) % 12 / 11)
    return np.stack(columns, 1) - 0.5


def _weeks(days: np.ndarray) -> np.ndarray:
    """The week of the year by ISO 8601, from 0: that of its Thursday."""
    number = days.astype(np.int64)
    thursday = (number - (number + 3) % 7 + 3).astype("datetime64[D]")
    years = thursday.astype("datetime64[Y]").astype("datetime64[D]")
    return (thursday - years).astype(np.int64) // 7


def _fits(times: np.ndarray, offsets: np.ndarray) -> _Fits:
    rows = np.diff(offsets)
    inner = np.ones(len(times), bool)
    inner[offsets[:-1]] = False
    low, high = _extent(np.diff(times, prepend=times[:1]).astype(np.int64), offsets, inner)
    even = np.where((low == high) & (low > 0), low, 0)
    none = np.zeros(len(rows), np.int64)
    if times.dtype.kind != "M":
        return _Fits(even, none, none, none > 0, rows)
    gap, steady, ends, same = _calendar(times, offsets, inner)
    months = np.where(steady & (ends | same), gap, 0)
    working = none > 0
    if ((even == 0) & (months == 0) & (rows > 1)).any() or (even == DAY).any():
        working = _working(times, offsets, inner)
    return _Fits(even, months, ends.astype(np.int64), working, rows)


def _calendar(
    times: np.ndarray, offsets: np.ndarray, inner: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each series: months between rows, whether they are even, all rows at a month's end, on one day."""
    days, months = times.astype("datetime64[D]"), times.astype("datetime64[M]")
    number = months.astype(np.int64)
    low, high = _extent(np.diff(number, prepend=number[:1]), offsets, inner)
    everywhere = np.ones_like(inner)
    first, last = _extent((days - months.astype("datetime64[D]")).astype(np.int64), offsets, everywhere)
    early, late = _extent((times - days).astype(np.int64), offsets, everywhere)
    end = (days + 1).astype("datetime64[M]") != months
    ends = np.logical_and.reduceat(end, offsets[:-1]) & (early == late)
    return low, (low == high) & (low > 0), ends, (first == last) & (early == late)


def _working(times: np.ndarray, offsets: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Which series have a row for every day from Monday to Friday and for no other."""
    days = times.astype("datetime64[D]")
    fits = (times == days) & np.is_busday(days)
    steps = np.ones(len(times), np.int64)
    steps[1:] = np.busday_count(days[:-1], days[1:])
    return np.logical_and.reduceat(fits & ((steps == 1) | ~inner), offsets[:-1])


def _extent(values: np.ndarray, offsets: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest of each series among some rows."""
    far = np.iinfo(np.int64)
    low = np.minimum.reduceat(np.where(which, values, far.max), offsets[:-1])
    return low, np.maximum.reduceat(np.where(which, values, far.min), offsets[:-1])


def _seen(rows: np.ndarray) -> np.ndarray:
    """Different rows in the order in which they come first."""
    if not len(rows):
        return rows
    _, first = np.unique(rows, axis=0, return_index=True)
    return rows[np.sort(first)]


def _common(steps: np.ndarray) -> int:
    """The most common number."""
    return int(Counter(steps.tolist()).most_common(1)[0][0])


def _even(step: int, dates: bool) -> Sampling:
    """Words and season of an even step, in nanoseconds where it is between dates."""
    if not dates:
        return Sampling(f"steps of {step}", 1, "step", step)
    if step % DAY == 0:
        return Sampling(_duration(step), {DAY: 7, 7 * DAY: 52}.get(step, 1), "step", step)
    whole = MINUTE if step < MINUTE else DAY
    season = whole // step if step < whole and whole % step == 0 else 1
    return Sampling(_duration(step), season, "step", step)


def _months(gap: int, end: bool) -> Sampling:
    name = {1: "1 month", 3: "3 months", 12: "1 year"}.get(gap, f"{gap} months")
    return Sampling(name, max(1, 12 // gap), "month end" if end else "month", gap)


def _duration(step: int) -> str:
    """Nanoseconds in the largest unit that divides them."""
    for name, size in (("day", DAY), ("hour", HOUR), ("minute", MINUTE), ("second", 10**9)):
        if step % size == 0:
            return f"{step // size} {name}" + ("" if step == size else "s")
    return f"{step / 10**9:g} seconds"
