"""Two runs beside each other: what is slower beyond the spread, what only one has, rounds put together."""

import pytest

from hippodrome.bench.compare import compare, joined, text, worst
from hippodrome.bench.row import Timing


def line(contender: str, mid: float, *, half: float = 0.05, **more) -> Timing:
    """A line whose middle half is so much of the median on either side."""
    low, high = mid * (1 - half), mid * (1 + half)
    return Timing("ssd", "forward", contender, {"b": 1}, 1, mid, low, high, 5)._replace(**more)


def test_what_is_slower_beyond_the_spread_is_named() -> None:
    before = [line("hippodrome", 1.0), line("hippodrome", 1.0, phase="both"), line("rival", 1.0)]
    after = [line("hippodrome", 1.5), line("hippodrome", 1.05, phase="both"), line("rival", 1.2)]
    found = compare(before, after)
    assert [change.name for change in found.slower] == ["ssd (hippodrome, forward, float32, b=1, 1 threads)"]
    assert not found.faster
    assert [change.ratio for change in found.same] == [pytest.approx(1.05)]
    assert found.drift == pytest.approx(1.2)
    assert worst(found) == pytest.approx(1.5)
    assert "1 s to 1.5 s, 1.50 times slower" in text(found)
    assert "took 1.20 times as long" in text(found)


def test_what_is_faster_is_named_and_nothing_is_worse() -> None:
    found = compare([line("hippodrome", 1.0)], [line("hippodrome", 0.5)])
    assert not found.slower
    assert "1 s to 500 ms, 2.00 times faster" in text(found)
    assert worst(found) == 1.0
    assert found.drift is None


def test_a_wide_spread_hides_a_change() -> None:
    found = compare([line("hippodrome", 1.0, half=0.4)], [line("hippodrome", 1.5, half=0.4)])
    assert not found.slower
    assert len(found.same) == 1


def test_lines_of_one_run_alone_are_told() -> None:
    before = [line("hippodrome", 1.0), line("hippodrome", 1.0, row="gone")]
    after = [line("hippodrome", 1.0), line("hippodrome", 1.0, row="fresh")]
    told = text(compare(before, after))
    assert "only in the first run:\n  gone" in told
    assert "only in the second run:\n  fresh" in told


def test_runs_with_nothing_in_common_are_refused() -> None:
    with pytest.raises(ValueError, match="no line of ours in common"):
        compare([line("hippodrome", 1.0)], [line("hippodrome", 1.0, dtype="bfloat16")])


def test_rounds_are_put_together_by_their_medians() -> None:
    (found,) = joined([[line("hippodrome", mid)] for mid in (1.0, 3.0, 2.0)])
    assert (found.median, found.low, found.high, found.runs) == (2.0, 0.95, pytest.approx(3.15), 15)
