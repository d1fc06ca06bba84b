"""The schedule at its corners, and that it has no state."""

import pytest

from hippodrome.train.schedule import factor


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.0, 0.1), (0.05, 0.55), (0.1, 1.0), (0.55, 0.6), (1.0, 0.2), (1.5, 0.2), (-1.0, 0.1)],
)
def test_corners(fraction, expected):
    assert factor(fraction, warmup=0.1, final=0.2) == pytest.approx(expected, rel=1e-12)


def test_no_warmup_starts_at_the_peak():
    assert factor(0.0, warmup=0.0, final=0.1) == 1.0


def test_it_rises_then_falls():
    values = [factor(i / 100, 0.2, 0.0) for i in range(101)]
    assert values[:21] == sorted(values[:21])
    assert values[20:] == sorted(values[20:], reverse=True)
