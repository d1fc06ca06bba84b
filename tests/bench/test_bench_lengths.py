"""Rows of one layer by length: what is timed is a token, at every length the row says."""

import pytest

from hippodrome.bench.row import Pace, Where
from hippodrome.bench.rows import every
from hippodrome.bench.run import measure


@pytest.mark.parametrize("name", ["flat-h3"])
def test_a_layer_by_length_is_timed_by_the_token(name: str) -> None:
    row = every()[name]
    assert row.build is not None
    assert [c.units for c in row.build(Where(), **row.tiny)] == [4, 16, 64, 256]
    (found,) = measure(row, Where(), 1, Pace(seconds=0, least=1), tiny=True, memory=False)
    assert {t.phase for t in found} == {"forward, per token", "forward + backward, per token"}
    assert all(t.median > 0 for t in found)
