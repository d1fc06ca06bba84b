"""Charts of forecasts and of cells: what their ticks and keys say, and that the whole of it is drawn."""

import numpy as np
import pytest

from hippodrome.analyze import figures
from hippodrome.estimators import _cell_charts, _charts


@pytest.mark.parametrize(
    ("low", "high", "short"),
    [(365.0, 380.0, False), (0.0, 40.0, True), (1.0e6, 1.2e6, True), (1.0005e6, 1.0010e6, False)],
)
def test_ticks_are_short_only_where_each_reads_as_itself(low: float, high: float, short: bool) -> None:
    _, ((ax,),) = figures.axes(6.0, 3.0, 1, 1)
    ax.plot([0, 1], [low, high])
    _charts._plain(ax)
    ticks = ax.get_yticks()
    told = [ax.yaxis.get_major_formatter()(tick, i) for i, tick in enumerate(ticks)]
    assert (told == [figures.short(tick) for tick in ticks]) is short


def test_a_hole_of_one_step_stands_alone() -> None:
    point = np.array([1.0, np.nan, 2.0, 3.0, np.nan, np.nan, 4.0])
    assert _cell_charts.alone(point).tolist() == [True, False, False, False, False, False, True]


def test_charts_of_cells_say_what_is_drawn_and_how_many_of_how_many() -> None:
    t = np.arange(30)
    values = np.stack([np.sin(t), np.cos(t)], 1)
    flagged = t == 7
    watched = [_cell_charts.Watch(f"pump {i}", t, values, np.abs(values[:, 0]), flagged) for i in range(5)]
    page = _cell_charts.alarms(watched, 0.9, "pumps", ["flow", "heat"]).svg
    for word in ("flow", "heat", "flagged", "threshold", "pumps, 3 of 5"):
        assert f">{word}<" in page, word
    hole = np.where(t == 5, 1.0, np.nan)
    series = np.where(t == 5, np.nan, values[:, 0])
    page = _cell_charts.filling(
        [_cell_charts.Filling("a", t, series, hole, hole - 1, hole + 1)], "a", 80.0
    ).svg
    assert ">80 % band<" in page
    assert ">a<" in page
