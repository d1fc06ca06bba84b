"""What a reader of series tells beside the task: which never changed, and which are too short to teach."""

import numpy as np
import pandas
import pytest

from hippodrome.data._fitting import fit_task
from hippodrome.data._panel import Reading, read_panel


def frame(**series: list[float]) -> pandas.DataFrame:
    parts = [
        pandas.DataFrame({"unique_id": key, "ds": np.arange(len(y)), "y": y}) for key, y in series.items()
    ]
    return pandas.concat(parts)


def remarks(df: pandas.DataFrame, horizon: int) -> list[str]:
    panel = read_panel(df, Reading())
    return fit_task(panel, 4, horizon, 0.1, "local").details["notes"]


def test_constant_and_short_series_are_named() -> None:
    moving = [float(i % 5) for i in range(30)]
    told = remarks(frame(a=moving, b=[7.0] * 20, c=[1.0, 2.0, 3.0]), 4)
    assert told[0].startswith("'b' never changed")
    assert told[1].startswith("'c' has 3 rows, no more than the horizon")
    assert len(told) == 2
    assert remarks(frame(a=moving), 4) == []


@pytest.mark.parametrize(
    ("count", "words"), [(2, "'b0', 'b1' never"), (5, "'b0', 'b1', 'b2' and 2 more never")]
)
def test_of_many_a_few_are_named(count: int, words: str) -> None:
    many = {f"b{i}": [float(i)] * 20 for i in range(count)}
    assert remarks(frame(a=[float(i % 5) for i in range(30)], **many), 4)[0].startswith(words)
