"""Charts of cells of series: those that were filled in, with their bands, and those that stand out."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hippodrome.analyze import figures
from hippodrome.estimators._charts import MOST, Drawing, _drawn, _plain, _time_axis

STEPS = 400
"""Steps of a long series that are drawn: the stretch with the most to see."""
_FILLED, _FLAGGED, _LABELLED = figures.COLOURS[1], figures.COLOURS[1], figures.COLOURS[4]
_VARIATES = tuple(colour for colour in figures.COLOURS if colour not in (_FLAGGED, _LABELLED))


class Filling(NamedTuple):
    """One variate: stamps and values (t,) with NaN in its holes, and point, low and high end (t,) of all
    cells, NaN where none was filled."""

    title: str
    stamps: np.ndarray
    values: np.ndarray
    point: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Watch(NamedTuple):
    """One series: stamps (t,), values (t, c), scores (t,), what is flagged, and labels where known."""

    title: str
    stamps: np.ndarray
    values: np.ndarray
    scores: np.ndarray
    flagged: np.ndarray
    labels: np.ndarray | None = None


def filling(variates: Sequence[Filling], title: str, level: float | None = None) -> Drawing:
    """The first variates around their holes, filled values in another colour with bands of ``level`` %."""

    def draw(colours: Mapping[str, str]) -> Any:
        shown = variates[:MOST]
        figure, grid = figures.axes(9.2, 0.7 + 2.0 * len(shown), len(shown), 1)
        for one, (ax,) in zip(shown, grid, strict=True):
            cut = busiest(~np.isnan(one.point), STEPS)
            stamps, point = one.stamps[cut], one.point[cut]
            low, high = one.low[cut], one.high[cut]
            ax.fill_between(stamps, low, high, color=_FILLED, alpha=0.25, linewidth=0)
            # A hole of one step is too narrow to be filled between.
            one_step = alone(point)
            ends = (low[one_step], high[one_step])
            ax.vlines(stamps[one_step], *ends, color=_FILLED, alpha=0.25, linewidth=3)
            ax.plot(stamps, one.values[cut], color=colours["ink"], linewidth=1.0)
            # A line from the last value known to the next, so that a hole of one step is seen too.
            hole = ~np.isnan(point)
            near = hole | np.append(hole[1:], False) | np.append(False, hole[:-1])
            joined = np.where(hole, point, np.where(near, one.values[cut], np.nan))
            ax.plot(stamps, joined, color=_FILLED, linewidth=1.2)
            ax.plot(stamps, point, color=_FILLED, marker="o", markersize=2.5, linestyle="none")
            ax.set_title(figures.shortened(one.title), fontsize=9.5)
            ax.margins(x=0.01)
            _plain(ax)
            _time_axis(ax, stamps)
        marks = [_line(colours["ink"], "series", 1.0), _line(_FILLED, "filled in", 1.2, "o")]
        if level is not None:
            marks.append(_line(_FILLED, f"{level:g} % band", 6.0, alpha=0.25))
        _key(figure, marks)
        figure.suptitle(_counted(title, len(shown), len(variates)), x=0.01, ha="left", fontsize=11)
        return figure

    return _drawn(draw, title)


def alarms(series: Sequence[Watch], threshold: float, title: str, names: Sequence[str] = ()) -> Drawing:
    """The first series above their scores, flagged steps marked, labelled ones shaded.

    ``names`` are the variates, of which the first few are drawn.
    """

    def draw(colours: Mapping[str, str]) -> Any:
        shown = series[: MOST // 2]
        figure, grid = figures.axes(9.2, 0.7 + 3.4 * len(shown), 2 * len(shown), 1)
        for one, (upper,), (lower,) in zip(shown, grid[::2], grid[1::2], strict=True):
            cut = busiest(one.flagged if one.labels is None else one.flagged | one.labels, 5 * STEPS)
            stamps, flagged = one.stamps[cut], one.flagged[cut]
            several = one.values.shape[1] > 1
            for i in range(min(one.values.shape[1], len(_VARIATES))):
                values = one.values[cut, i]
                upper.plot(stamps, values, color=_VARIATES[i] if several else colours["ink"], linewidth=0.8)
                if not several:
                    marked = np.where(flagged, values, np.nan)
                    upper.plot(stamps, marked, color=_FLAGGED, marker="o", markersize=2.5, linestyle="none")
            lower.plot(stamps, one.scores[cut], color=colours["ink"], linewidth=0.8)
            above = np.where(flagged, one.scores[cut], np.nan)
            lower.plot(stamps, above, color=_FLAGGED, marker="o", markersize=2.5, linestyle="none")
            lower.axhline(threshold, color=_FLAGGED, linewidth=0.8, linestyle=(0, (4, 3)))
            if one.labels is not None:
                for begin, end in _stretches(one.labels[cut]):
                    for ax in (upper, lower):
                        last = stamps[min(end, len(stamps) - 1)]
                        ax.axvspan(stamps[begin], last, color=_LABELLED, alpha=0.3, linewidth=0)
            upper.set_title(figures.shortened(one.title), fontsize=9.5)
            lower.set_ylabel("score", fontsize=9)
            for ax in (upper, lower):
                # Said, because the first steps may have no score.
                ax.set_xlim(stamps[0], stamps[-1])
                _plain(ax)
                _time_axis(ax, stamps)
        marks = [_line(_FLAGGED, "flagged", 0.0, "o"), _line(_FLAGGED, "threshold", 0.8, dash=(0, (4, 3)))]
        if any(one.labels is not None for one in shown):
            marks.append(_line(_LABELLED, "labelled", 6.0, alpha=0.3))
        if len(names) > 1:
            told = zip(_VARIATES, names, strict=False)
            marks = [*(_line(ink, figures.shortened(name, 12), 1.2) for ink, name in told), *marks]
        _key(figure, marks)
        figure.suptitle(_counted(title, len(shown), len(series)), x=0.01, ha="left", fontsize=11)
        return figure

    return _drawn(draw, title)


def busiest(marked: np.ndarray, steps: int) -> slice:
    """The stretch of ``steps`` steps that holds most marked ones, the first such; all of a shorter one."""
    if len(marked) <= steps:
        return slice(0, len(marked))
    counts = np.concatenate([[0], np.cumsum(marked)])
    inside = counts[steps:] - counts[:-steps]
    best = np.flatnonzero(inside == inside.max())
    # In the middle of the first run of equally good starts, so that something is seen on both sides.
    run = best[: int(np.flatnonzero(np.diff(best, append=len(marked) + 2) > 1)[0]) + 1]
    start = int(run[len(run) // 2])
    return slice(start, start + steps)


def _stretches(marked: np.ndarray) -> list[tuple[int, int]]:
    """First step of each marked stretch, and the step behind its last."""
    edges = np.diff(np.concatenate([[False], marked, [False]]).astype(int))
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


def alone(point: np.ndarray) -> np.ndarray:
    """Which steps (t,) have a value and none right before or after."""
    there = np.pad(~np.isnan(point), 1)
    return there[1:-1] & ~there[:-2] & ~there[2:]


def _counted(title: str, shown: int, count: int) -> str:
    return title if shown == count else f"{title}, {shown} of {count}"


def _line(colour: str, name: str, width: float, mark: str = "", dash: Any = "-", alpha: float = 1.0) -> Any:
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"linewidth": width, "marker": mark, "markersize": 3.5, "linestyle": dash}
    return Line2D([], [], color=colour, alpha=alpha, label=name, **look)


def _key(figure: Any, marks: Sequence[Any]) -> None:
    # Many go below, where they do not meet the title.
    place = "outside upper right" if len(marks) < 5 else "outside lower left"
    figure.legend(handles=marks, loc=place, ncols=min(len(marks), 9), fontsize=8.5)
