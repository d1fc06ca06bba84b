"""The stamps of a series that goes on: which comes next, how many were passed over, what a model is told of
them."""

from typing import Any

import numpy as np

from hippodrome.data import _clock
from hippodrome.data._panel import Reading
from hippodrome.data._table import nanoseconds


class Ticker:
    """Stamps after the end of a series.

    Those of an even series are counted from the last one of its history, so that a month's last day stays
    one.

    Args:
        reading: how the series was read.
        sampling: of the series.
        anchor: the last stamp of the history.
        last: the last stamp seen.
        steps: steps from the anchor to it.
    """

    def __init__(
        self, reading: Reading, sampling: _clock.Sampling, anchor: Any, last: Any = None, steps: int = 0
    ) -> None:
        self.reading, self.sampling, self.anchor, self.steps = reading, sampling, anchor, steps
        self.last = anchor if last is None else last
        self.dates = np.asarray(anchor).dtype.kind == "M"

    def ahead(self, count: int, skipped: int = 0) -> np.ndarray:
        """The next stamps (count,) after some that are ``skipped``, at the usual step."""
        if self.reading.irregular:
            return _clock.ahead(self.sampling, np.asarray([self.last]), count, skipped + 1)[0]
        return _clock.ahead(self.sampling, np.asarray([self.anchor]), count, self.steps + skipped + 1)[0]

    def place(self, stamp: Any) -> tuple[int, Any]:
        """How many steps after the last one a stamp is, and the stamp as the series has them.

        Raises:
            ValueError: a stamp that is not after the last one, lies between two, or is none.
        """
        following = self.ahead(1)[0]
        time = following if stamp is None else self._read(stamp)
        if time == following:
            return 1, time
        if time <= self.last:
            raise ValueError(
                f"observations come in order: {_clock.said(time)} is not after {_clock.said(self.last)}, the "
                f"last one. Leave out what was seen already"
            )
        if self.reading.irregular:
            return 1, time
        if self.sampling.unit == "step":
            # Counted, as a stamp far off would take a grid of any size.
            far = (time - self.last).astype(np.int64) if self.dates else time - self.last
            count, rest = divmod(far, self.sampling.size)
            if rest:
                raise self._between(following, time)
            return int(count), time
        span, grid = 64, self.ahead(64)
        while grid[-1] < time:
            span *= 8
            grid = self.ahead(span)
        at = int(np.searchsorted(grid, time))
        if grid[at] != time:
            raise self._between(following, time)
        return at + 1, time

    def _between(self, following: Any, time: Any) -> ValueError:
        return ValueError(
            f"the series has one stamp every {self.sampling.name}: {_clock.said(following)} comes next, and "
            f"{_clock.said(time)} lies between two. Round it, or leave the stamps out"
        )

    def pace(self, time: Any) -> float:
        """The step in front of a stamp beside the usual one: 1 of an even series."""
        if not self.reading.irregular:
            return 1.0
        size = self.sampling.size
        return float((time - self.last) / (np.timedelta64(size, "ns") if self.dates else size))

    def take(self, time: Any, count: int = 1) -> None:
        """Move on to a stamp, so many steps away."""
        self.last, self.steps = time, self.steps + count

    def covariates(self, times: np.ndarray, paces: np.ndarray) -> np.ndarray:
        """The known covariates (t, k) that are made of stamps: the calendar, and the steps between them."""
        columns = [np.zeros((len(times), 0))]
        if self.reading.calendar:
            columns.append(_clock.calendar(times, tuple(self.reading.calendar)))  # type: ignore[arg-type]
        if self.reading.irregular:
            columns.append(np.log(paces)[:, None])
        return np.concatenate(columns, 1)

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        times = [t.astype(np.int64).item() if self.dates else t.item() for t in (self.anchor, self.last)]
        return {
            "sampling": list(self.sampling),
            "dates": self.dates,
            "times": times,
            "steps": self.steps,
        }

    @classmethod
    def restored(cls, reading: Reading, facts: dict[str, Any]) -> "Ticker":
        """Of what ``facts`` said."""
        times = np.asarray(facts["times"])
        anchor, last = times.astype("datetime64[ns]") if facts["dates"] else times
        return cls(reading, _clock.Sampling(*facts["sampling"]), anchor, last, facts["steps"])

    def _read(self, stamp: Any) -> Any:
        import pandas

        if self.dates:
            try:
                found = nanoseconds(np.asarray(pandas.Timestamp(stamp).to_datetime64()))
            except (ValueError, TypeError):
                found = np.asarray(np.datetime64("NaT"))
            if np.isnat(found):
                raise ValueError(f"a stamp is a date such as 2024-01-31 12:00:00; got {stamp!r}")
            return found[()]
        try:
            number = float(stamp)
        except (ValueError, TypeError):
            number = np.nan
        if not np.isfinite(number):
            raise ValueError(f"the stamps of this series are numbers; got {stamp!r}")
        # A fraction beside whole numbers is one, of irregular stamps; others are told that it lies between.
        return np.int64(number) if number == np.floor(number) else np.float64(number)
