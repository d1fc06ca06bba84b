"""Two runs of the benchmark beside each other: what of ours got slower, by how much, beyond the spread."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from hippodrome.bench.page import time_text
from hippodrome.bench.row import OURS, Timing

Key = tuple[str, str, str, str, str, int]


class Change(NamedTuple):
    """One line of both runs. ``beyond``: the middle halves of the runs do not overlap."""

    name: str
    before: Timing
    after: Timing

    @property
    def ratio(self) -> float:
        """Above 1 it got slower."""
        return self.after.median / self.before.median

    @property
    def beyond(self) -> bool:
        """Whether the change is larger than the spread of both runs."""
        return self.after.low > self.before.high or self.after.high < self.before.low

    def told(self) -> str:
        """The change in a line."""
        how = "slower" if self.ratio > 1 else "faster"
        times = f"{time_text(self.before.median)} to {time_text(self.after.median)}"
        return f"{self.name}: {times}, {max(self.ratio, 1 / self.ratio):.2f} times {how}"


class Comparison(NamedTuple):
    """What two runs have in common: ours beyond the spread, ours within it, and what only one of them has.

    ``drift``: by what factor the rivals and floors, which did not change, took longer in the second run; None
    where there are none.
    """

    slower: list[Change]
    faster: list[Change]
    same: list[Change]
    only_before: list[str]
    only_after: list[str]
    drift: float | None


def _key(timing: Timing) -> Key:
    shape = " ".join(f"{k}={v}" for k, v in timing.shape.items())
    return timing.row, timing.dtype, shape, timing.phase, timing.contender, timing.threads


def _name(key: Key) -> str:
    row, dtype, shape, phase, contender, threads = key
    return f"{row} ({contender}, {phase}, {dtype}{', ' + shape if shape else ''}, {threads} threads)"


def compare(before: Sequence[Timing], after: Sequence[Timing]) -> Comparison:
    """The lines of ours that both runs have. Raises ValueError where they have none in common."""
    old, new = ({_key(t): t for t in timings} for timings in (before, after))
    shared = [key for key in old if key in new]
    ours = [key for key in shared if key[4].startswith(OURS)]
    if not ours:
        raise ValueError(
            "the two runs have no line of ours in common; expected the same rows, shapes, dtypes and threads "
            "in both. Measure them by the same command."
        )
    changes = [Change(_name(key), old[key], new[key]) for key in ours]
    others = [new[key].median / old[key].median for key in shared if not key[4].startswith(OURS)]
    slower = sorted((c for c in changes if c.beyond and c.ratio > 1), key=lambda c: -c.ratio)
    faster = sorted((c for c in changes if c.beyond and c.ratio < 1), key=lambda c: c.ratio)
    same = [c for c in changes if c not in slower and c not in faster]
    missing = [_name(key) for key in old if key not in new and key[4].startswith(OURS)]
    fresh = [_name(key) for key in new if key not in old and key[4].startswith(OURS)]
    return Comparison(slower, faster, same, missing, fresh, median(others) if others else None)


def text(found: Comparison) -> str:
    """The comparison for a person: what got slower first."""
    out = []
    for heading, changes in (("slower", found.slower), ("faster", found.faster)):
        out.append(f"{heading}, beyond the spread: {len(changes) or 'nothing'}")
        out += [f"  {change.told()}" for change in changes]
    if found.same:
        ratios = sorted(change.ratio for change in found.same)
        out.append(
            f"within the spread: {len(ratios)} lines, {ratios[0]:.2f} to {ratios[-1]:.2f} times the time"
        )
    for heading, names in (("first", found.only_before), ("second", found.only_after)):
        if names:
            out.append(f"only in the {heading} run:")
            out += [f"  {name}" for name in names]
    if found.drift is not None:
        out.append(
            f"what is not ours took {found.drift:.2f} times as long in the second run: read the changes "
            "against that"
        )
    return "\n".join(out)


def worst(found: Comparison) -> float:
    """The ratio of what got slower most, beyond the spread; 1 where nothing did."""
    return max([change.ratio for change in found.slower], default=1.0)


def joined(rounds: Sequence[Sequence[Timing]]) -> list[Timing]:
    """Several runs of the same lines as one: the median of their medians, the widest middle half."""
    lines: dict[Key, list[Timing]] = {}
    for timings in rounds:
        for timing in timings:
            lines.setdefault(_key(timing), []).append(timing)
    return [
        each[0]._replace(
            median=median(t.median for t in each),
            low=min(t.low for t in each),
            high=max(t.high for t in each),
            runs=sum(t.runs for t in each),
        )
        for each in lines.values()
    ]
