"""Charts of systems and memories, each drawn as SVG for a page or as PNG for a file."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

from hippodrome.analyze.figures import (
    COLOURS,
    DASHES,
    FAINT,
    INK,
    RC,
    Number,
    Numbers,
    axes,
    plain_ticks,
    svg,
)

PAPER = {INK: "#1f1f1f", FAINT: "#d9d9d9"}
"""Ink and grid on white paper, where no page gives its own."""


class Chart(NamedTuple):
    """A drawing that has not been drawn yet. ``name`` is its file's stem; ``note`` is a sentence below it."""

    name: str
    title: str
    draw: Callable[[], Any]
    note: str = ""

    def svg(self) -> str:
        """An ``<svg>`` element in the page's own colours."""
        import matplotlib

        with matplotlib.rc_context(RC):
            return svg(self.draw(), self.title, self.name)

    def png(self, dpi: int = 160) -> bytes:
        """The bytes of a PNG file on white paper."""
        import matplotlib

        buffer = BytesIO()
        settings = {k: PAPER.get(v, v) if isinstance(v, str) else v for k, v in RC.items()}
        with matplotlib.rc_context(settings):
            self.draw().savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
        return buffer.getvalue()


class Trace(NamedTuple):
    """One line: what it is called in the legend and where it goes. ``ink`` draws it as reference, in ink."""

    name: str
    x: Numbers
    y: Numbers
    ink: bool = False


def _ink() -> str:
    import matplotlib

    return str(matplotlib.rcParams["text.color"])


def _legend(figure: Any, ax: Any) -> None:
    """The names of the lines, below everything, where they hide none of them."""
    handles, names = ax.get_legend_handles_labels()
    if len(names) > 1:
        columns = max(1, min(len(names), int(figure.get_figwidth() * 11 / (4 + max(map(len, names))))))
        figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=8.5)


def _plot(ax: Any, traces: Sequence[Trace], *, markers: bool = False) -> None:
    i = 0
    for trace in traces:
        style: dict[str, Any] = {"color": _ink(), "linestyle": (0, (1, 1.2)), "linewidth": 1.4, "zorder": 4}
        if not trace.ink:
            style = {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)]}
            i += 1
        if markers:
            style |= {"marker": "o", "markersize": 3, "linewidth": 1.0}
        ax.plot(trace.x, trace.y, label=trace.name, **style)


def traces(
    name: str,
    title: str,
    lines: Sequence[Trace],
    *,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
    rules: Mapping[str, Number] | None = None,
    marks: Mapping[str, Number] | None = None,
    y_limits: tuple[Number, Number] | None = None,
    markers: bool = False,
    note: str = "",
    width: Number = 5.4,
    height: Number = 3.3,
) -> Chart:
    """A line chart with a legend; ``rules`` are named horizontal lines, ``marks`` named vertical ones."""

    def draw() -> Any:
        figure, grid = axes(width, height)
        ax = grid[0][0]
        _plot(ax, lines, markers=markers)
        if log_x:
            ax.set_xscale("log")
        if log_y:
            ax.set_yscale("log")
        if y_limits is not None:
            ax.set_ylim(*y_limits)
        for label, level in (rules or {}).items():
            ax.axhline(level, color=_ink(), linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
            ax.annotate(
                label,
                (0, level),
                xycoords=("axes fraction", "data"),
                xytext=(3, 3),
                textcoords="offset points",
                fontsize=8.5,
            )
        for label, place in (marks or {}).items():
            ax.axvline(place, color=_ink(), linewidth=0.8, linestyle=(0, (2, 2)), alpha=0.7)
            ax.annotate(
                label,
                (place, 1),
                xycoords=("data", "axes fraction"),
                xytext=(-3, -3),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=8.5,
            )
        plain_ticks(ax, None, log_x, log_y)
        ax.set(xlabel=x, ylabel=y, title=title)
        ax.margins(x=0.02)
        _legend(figure, ax)
        return figure

    return Chart(name, title, draw, note)


class Gain(NamedTuple):
    """One line of a Bode plot: frequencies in radians a step, decibels, degrees."""

    name: str
    omega: Numbers
    decibels: Numbers
    degrees: Numbers


def bode(name: str, title: str, gains: Sequence[Gain], *, x: str = "radians a step", note: str = "") -> Chart:
    """Magnitude above, phase below, over the logarithm of the frequency."""

    def draw() -> Any:
        figure, grid = axes(5.4, 4.6, 2, 1, sharex=True)
        top, bottom = grid[0][0], grid[1][0]
        _plot(top, [Trace(g.name, g.omega, g.decibels) for g in gains])
        _plot(bottom, [Trace(g.name, g.omega, g.degrees) for g in gains])
        top.set(ylabel="gain, dB", title=title)
        low, high = top.get_ylim()
        if high - low < 6:  # so that a flat line is seen to be flat
            middle = 0.5 * (low + high)
            top.set_ylim(middle - 3, middle + 3)
        bottom.set(ylabel="phase, degrees", xlabel=x)
        for ax in (top, bottom):
            ax.set_xscale("log")
            plain_ticks(ax, None, True, False)
            ax.margins(x=0.02)
        _legend(figure, top)
        return figure

    return Chart(name, title, draw, note)


def poles(name: str, title: str, values: np.ndarray, *, circle: bool = True, note: str = "") -> Chart:
    """Complex numbers (m, 2): beside the unit circle in discrete time, beside the imaginary axis without."""

    def draw() -> Any:
        figure, grid = axes(3.8, 3.8)
        ax = grid[0][0]
        if circle:
            turn = np.linspace(0, 2 * np.pi, 200)
            ax.plot(np.cos(turn), np.sin(turn), color=_ink(), linewidth=0.8)
            ax.set_aspect("equal")
        else:
            ax.axvline(0, color=_ink(), linewidth=0.8)
        ax.plot(
            values[:, 0],
            values[:, 1],
            linestyle="none",
            marker="x",
            markersize=4,
            markeredgewidth=1.0,
            color=COLOURS[0],
            alpha=0.7,
        )
        plain_ticks(ax, None, False, False)
        ax.set(xlabel="real", ylabel="imaginary", title=title)
        return figure

    return Chart(name, title, draw, note)


def outline(
    name: str, title: str, edges: Mapping[str, np.ndarray], *, x: str, y: str, note: str = ""
) -> Chart:
    """Closed curves in a plane, each (points, 2): reachable sets, one inside the other."""

    def draw() -> Any:
        figure, grid = axes(3.8, 3.8)
        ax = grid[0][0]
        _plot(ax, [Trace(label, edge[:, 0], edge[:, 1]) for label, edge in edges.items()])
        plain_ticks(ax, None, False, False)
        ax.set(xlabel=x, ylabel=y, title=title)
        _legend(figure, ax)
        return figure

    return Chart(name, title, draw, note)
