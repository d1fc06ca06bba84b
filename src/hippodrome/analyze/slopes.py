"""A chart of pairs: each model before and after, as lines whose ends show how far the models lie apart."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hippodrome.analyze.figures import INK, RC, Number, Style, axes, plain_ticks, svg


class Slope(NamedTuple):
    """One model before and after."""

    name: str
    before: Number
    after: Number


def slopes(
    shown: Sequence[Slope],
    look: Mapping[str, Style],
    *,
    title: str,
    ends: tuple[str, str],
    y: str,
    rules: Mapping[str, Number] | None = None,
    width: Number = 5.4,
    height: Number = 3.5,
) -> str:
    """A line from before to after for each model, its name at both ends."""
    import matplotlib

    with matplotlib.rc_context(RC):
        figure, grid = axes(width, height)
        ax = grid[0][0]
        for name, before, after in shown:
            style = look[name]
            ax.plot([0, 1], [before, after], color=style.colour, marker=style.marker, markersize=6)
        for name, level in (rules or {}).items():
            ax.axhline(level, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
            ax.annotate(name, (0.5, level), xytext=(0, 3), textcoords="offset points", fontsize=8.5)
        plain_ticks(ax, None, False, False)
        ax.set(xlim=(-0.45, 1.45), ylabel=y, title=title)
        ax.set_xticks([0, 1], ends)
        ax.margins(y=0.1)
        figure.draw_without_rendering()
        for end, side in ((0, "right"), (1, "left")):
            _name_ends(ax, [(s.name, float(s[1 + end])) for s in shown], end, side, look)
        return svg(figure, title, title)


def _name_ends(
    ax: Any, ends: Sequence[tuple[str, float]], x: int, side: str, look: Mapping[str, Style]
) -> None:
    """Names beside the ends of lines, pushed up as far as keeps them apart."""
    high = 11 * ax.figure.dpi / 72
    above = -np.inf
    for name, value in sorted(ends, key=lambda pair: pair[1]):
        place = ax.transData.transform((x, value))[1]
        above = max(place, above + high)
        ax.annotate(
            name,
            (x, value),
            xytext=(9 if side == "left" else -9, (above - place) * 72 / ax.figure.dpi),
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=8.5,
            color=look[name].colour,
        )
