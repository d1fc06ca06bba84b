"""Charts as SVG text that sits inside a page: one hand for every figure of the report and of `inspect`.

Matplotlib is imported when the first chart is drawn, without pyplot, its settings put back afterwards.
Axes and letters are drawn in the page's own text colour, so a chart reads on light and on dark paper.
"""

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STYLE = Path(__file__).with_name("report.css")
"""The style sheet of the pages that these charts sit in: it has their colours, for light and dark paper."""

# Okabe and Ito's palette for all kinds of colour vision (2008), less its yellow and black, which drown on
# one of the two papers, and two more that keep apart from them. Markers and dashes tell the lines apart
# without any colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A63B8", "#7A7A7A")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")

# Stand-ins while drawing; the text of the SVG gets the page's own colours in their place.
INK, FAINT = "#010203", "#040506"
RC: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "text.color": INK,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "axes.formatter.useoffset": False,
}


Number = float | int
Numbers = Sequence[Number] | np.ndarray


class Style(NamedTuple):
    """How one model is drawn in every chart of a page.

    ``colour`` is one of ``COLOURS``. In the SVG it becomes ``var(--model-i, colour)``, i its place there,
    so that a page may lighten it on dark paper.
    """

    colour: str
    marker: str
    dash: str


def styles(names: Sequence[str]) -> dict[str, Style]:
    """A colour, a marker and a dash for each name; beyond eight names only marker and dash tell apart."""
    n = len(COLOURS)
    return {
        name: Style(COLOURS[i % n], MARKERS[(i + i // n) % len(MARKERS)], DASHES[(i // n) % len(DASHES)])
        for i, name in enumerate(names)
    }


class Line(NamedTuple):
    """One line of a chart: the name says whose it is, and so how it is drawn. NaN in ``y`` breaks it."""

    name: str
    x: Numbers
    y: Numbers
    markers: bool = False


def axes(width: Number, height: Number, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes


def svg(figure: Any, title: str, salt: str) -> str:
    """The figure as an ``<svg>`` element that scales with its column and clashes with no other."""
    import matplotlib

    buffer = StringIO()
    with matplotlib.rc_context({**RC, "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    opening = text[: text.index(">") + 1]
    box = re.search(r'viewBox="[^"]*"', opening)
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    widest = round(figure.get_figwidth() * 72 * 1.75)
    head = (
        f'<svg {box.group(0) if box else ""} style="max-width: {widest}px" role="img" aria-label="{label}">'
    )
    text = head + text[len(opening) :]
    for i, colour in enumerate(COLOURS):
        text = re.sub(colour, f"var(--model-{i}, {colour})", text, flags=re.IGNORECASE)
    return text.replace(INK, "currentColor").replace(FAINT, "var(--grid, #8884)").strip()


def lines(
    series: Sequence[Line],
    look: Mapping[str, Style],
    *,
    title: str,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
    x_ticks: Numbers | None = None,
    y_limits: tuple[Number, Number] | None = None,
    rules: Mapping[str, Number] | None = None,
    rules_left: bool = False,
    width: Number = 5.4,
    height: Number = 3.5,
) -> str:
    """A line chart. ``rules`` are named horizontal lines (a naive baseline, a known best error)."""
    import matplotlib

    with matplotlib.rc_context(RC):
        figure, grid = axes(width, height)
        ax = grid[0][0]
        for line in series:
            style = look[line.name]
            ax.plot(
                line.x,
                line.y,
                color=style.colour,
                linestyle=style.dash,
                marker=style.marker if line.markers else None,
                markersize=4.5,
            )
        for name, level in (rules or {}).items():
            ax.axhline(level, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
            ax.annotate(
                name,
                (0 if rules_left else 1, level),
                xycoords=("axes fraction", "data"),
                xytext=(3 if rules_left else -2, 3),
                textcoords="offset points",
                ha="left" if rules_left else "right",
                fontsize=8.5,
            )
        if log_x:
            ax.set_xscale("log")
        if log_y:
            ax.set_yscale("log")
        if y_limits is not None:
            ax.set_ylim(*y_limits)
        plain_ticks(ax, x_ticks, log_x, log_y)
        ax.set(xlabel=x, ylabel=y, title=title)
        return svg(figure, title, title)


def plain_ticks(ax: Any, x_ticks: Numbers | None, log_x: bool, log_y: bool) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    plain = FuncFormatter(lambda value, _: short(value))
    ax.xaxis.set_major_formatter(plain)
    ax.yaxis.set_major_formatter(plain)
    if x_ticks is not None:
        ax.xaxis.set_major_locator(FixedLocator(list(x_ticks)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
    for axis, log in ((ax.xaxis, log_x and x_ticks is None), (ax.yaxis, log_y)):
        if log:
            low, high = sorted(axis.get_view_interval())
            narrow = high / max(low, 1e-300) < 200
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=9))
            axis.set_minor_formatter(NullFormatter())


def short(value: Number) -> str:
    """A number in at most about five letters: 950, 1.5k, 16k, 2M, 0.03, 2e-05."""
    if value == 0:
        return "0"
    size = abs(value)
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit * 0.9995:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.0e}" if size < 1e-3 else f"{value:.3g}"


class Point(NamedTuple):
    """One model in a scatter chart, with the half-width of its interval if there is one."""

    name: str
    x: Number
    y: Number
    spread: Number | None = None


def scatter(
    points: Sequence[Point],
    look: Mapping[str, Style],
    *,
    title: str,
    x: str,
    y: str,
    log_x: bool = True,
    rules: Mapping[str, Number] | None = None,
    width: Number = 5.4,
    height: Number = 3.5,
) -> str:
    """Named points with error bars; names stand beside their points, moved apart where they would collide."""
    import matplotlib

    with matplotlib.rc_context(RC):
        figure, grid = axes(width, height)
        ax = grid[0][0]
        for point in points:
            style = look[point.name]
            ax.errorbar(
                [point.x],
                [point.y],
                yerr=None if point.spread is None else [point.spread],
                color=style.colour,
                marker=style.marker,
                markersize=7,
                capsize=3,
                linestyle="none",
            )
        for name, level in (rules or {}).items():
            ax.axhline(level, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
            ax.annotate(
                name,
                (0, level),
                xycoords=("axes fraction", "data"),
                xytext=(3, 3),
                textcoords="offset points",
                fontsize=8.5,
            )
        if log_x:
            ax.set_xscale("log")
        ax.margins(x=0.22, y=0.16)
        plain_ticks(ax, None, log_x, False)
        ax.set(xlabel=x, ylabel=y, title=title)
        figure.draw_without_rendering()
        _name_points(ax, points, look)
        return svg(figure, title, title)


def shortened(name: str, at_most: int = 36) -> str:
    """A name with its middle left out where it is long: a chart has no room for a hybrid's whole pattern."""
    keep = at_most // 2
    return name if len(name) <= at_most else f"{name[:keep]}…{name[-(at_most - keep - 1) :]}"


def _name_points(ax: Any, points: Sequence[Point], look: Mapping[str, Style]) -> None:
    """Write each name to the right of its point, and nudge names up until none covers another."""
    taken: list[tuple[float, float, float, float]] = []
    box = ax.get_window_extent()
    scale = ax.figure.dpi / 72
    for point in points:  # names keep clear of markers and error bars too
        px, low = ax.transData.transform((point.x, point.y - (point.spread or 0)))
        _, high = ax.transData.transform((point.x, point.y + (point.spread or 0)))
        taken.append((px - 4 * scale, low - 5 * scale, px + 4 * scale, high + 5 * scale))
    for point in sorted(points, key=lambda p: p.y):
        px, py = ax.transData.transform((point.x, point.y))
        name = shortened(point.name)
        wide, high = 6.2 * scale * len(name), 11 * scale
        moves = [scale * k * sign for k in range(0, 120, 2) for sign in (1, -1)]
        for move, right in ((move, right) for move in moves for right in (True, False)):
            left = px + 8 * scale if right else px - 8 * scale - wide
            base = py - high / 2 + move
            inside = left >= box.x0 and left + wide <= box.x1 and base >= box.y0 and base + high <= box.y1
            clear = all(
                left >= t[2] or t[0] >= left + wide or base >= t[3] or t[1] >= base + high for t in taken
            )
            if inside and clear:
                break
        taken.append((left, base, left + wide, base + high))
        ax.annotate(
            name,
            (point.x, point.y),
            xytext=((8 if right else -8), (base + high / 2 - py) / scale),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=8.5,
            color=look[point.name].colour,
        )


class Band(NamedTuple):
    """A forecast: the middle, the lower and the upper end of a band."""

    name: str
    middle: Numbers
    low: Numbers | None = None
    high: Numbers | None = None


def forecast(
    past: Numbers,
    truth: Numbers,
    bands: Sequence[Band],
    look: Mapping[str, Style],
    *,
    title: str,
    x: str,
    y: str,
    width: Number = 5.4,
    height: Number = 2.9,
) -> str:
    """Past and truth in ink, forecasts with bands in colour; the forecast begins at time zero."""
    import matplotlib

    with matplotlib.rc_context(RC):
        figure, grid = axes(width, height)
        ax = grid[0][0]
        ahead = np.arange(len(truth))
        ax.plot(np.arange(-len(past), 0), past, color=INK, linewidth=1.0)
        ax.plot(ahead, truth, color=INK, linewidth=1.1, linestyle=(0, (1, 1.2)), zorder=4)
        for band in bands:
            style = look[band.name]
            if band.low is not None and band.high is not None:
                ax.fill_between(ahead, band.low, band.high, color=style.colour, alpha=0.22, linewidth=0)
            ax.plot(ahead, band.middle, color=style.colour, linestyle=style.dash, linewidth=1.7)
        ax.axvline(-0.5, color=INK, linewidth=0.7, alpha=0.6)
        ax.margins(x=0.01)
        ax.set(xlabel=x, ylabel=y, title=title)
        plain_ticks(ax, None, False, False)
        return svg(figure, title, title)


def matrix(counts: Sequence[Sequence[int]], names: Sequence[str], colour: str, *, title: str) -> str:
    """A confusion matrix: rows are the truth, columns the answer, shade the share of the row."""
    import matplotlib

    table = np.asarray(counts, dtype=float)
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    k = len(names)
    size = min(5.6, max(3.0, 0.40 * k + 1.2))
    with matplotlib.rc_context({**RC, "axes.grid": False}):
        from matplotlib.colors import to_rgb
        from matplotlib.patches import Rectangle

        figure, grid = axes(size, size)
        ax = grid[0][0]
        for i in range(k):
            for j in range(k):
                # Shade by opacity over the page, so that it reads on either paper.
                if table[i, j]:
                    shade = (*to_rgb(colour), 0.10 + 0.75 * share[i, j])
                    ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=shade, linewidth=0))
                if table[i, j] and k <= 24:
                    ax.text(
                        j, i, f"{int(table[i, j])}", ha="center", va="center", fontsize=9 if k <= 12 else 7
                    )
        labels = [n if len(n) <= 12 else n[:11] + "…" for n in names]
        ax.set_xticks(range(k), labels, rotation=0 if max(map(len, labels)) * k < 40 else 60, ha="right")
        if max(map(len, labels)) * k < 40:
            ax.set_xticks(range(k), labels, ha="center")
        ax.set_yticks(range(k), labels)
        ax.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), xlabel="answer", ylabel="truth", title=title)
        ax.set_aspect("equal")
        return svg(figure, title, title)
