"""Charts of forecasts: the steps ahead with their bands, the windows of a backtest, what a forecast is of."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

from hippodrome.analyze import figures

MOST = 6
"""Series of many that are drawn, the first ones."""
_PAPER = {"ink": "#1c1f24", "faint": "#d9dad5"}
_SHADES = (0.30, 0.16, 0.09)
"""Of the bands from the inner to the outer one."""


class Forecast(NamedTuple):
    """One forecast over its stamps: the point (h,), and low and high ends (h,) by level in percent."""

    name: str
    stamps: np.ndarray
    point: np.ndarray
    bands: Mapping[float, tuple[np.ndarray, np.ndarray]] = {}


class Panel(NamedTuple):
    """One series: what was seen of it, and forecasts; a model's of several windows are drawn as one."""

    title: str
    stamps: np.ndarray
    values: np.ndarray
    forecasts: Sequence[Forecast]
    cutoffs: Sequence[Any] = ()


class Drawing(NamedTuple):
    """A chart twice: a picture on white paper, and an SVG that takes the colours of the page around it."""

    png: bytes
    svg: str


def forecast(panels: Sequence[Panel], title: str) -> Drawing:
    """The end of each series and what comes after it, with bands."""
    return _drawn(lambda colours: _panels(panels, title, colours, (7.6, 3.4)), title)


def backtest(panels: Sequence[Panel], title: str) -> Drawing:
    """The windows of a backtest over the series: what was forecast at each cutoff, and what came."""
    return _drawn(lambda colours: _panels(panels, title, colours, (9.2, 3.2), columns=1), title)


def components(stamps: np.ndarray, parts: Mapping[str, np.ndarray], total: np.ndarray, title: str) -> Drawing:
    """The point forecast (h,) and the named parts that it is the sum of, one below the other."""

    def draw(colours: Mapping[str, str]) -> Any:
        rows = {"forecast": total, **parts}
        figure, grid = figures.axes(7.6, 1.0 + 1.25 * len(rows), len(rows), 1, sharex=True)
        for (name, values), (ax,) in zip(rows.items(), grid, strict=True):
            index = list(rows).index(name)
            shade = colours["ink"] if not index else figures.COLOURS[(index - 1) % len(figures.COLOURS)]
            ax.plot(stamps, values, color=shade, linewidth=1.5)
            ax.set_title(name, fontsize=9.5)
            ax.margins(x=0.01, y=0.12)
            ax.yaxis.get_major_locator().set_params(nbins=4)
            _plain(ax)
        _time_axis(grid[-1][0], stamps)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        return figure

    return _drawn(draw, title)


def _drawn(draw: Callable[[Mapping[str, str]], Any], title: str) -> Drawing:
    import matplotlib

    picture = BytesIO()
    with matplotlib.rc_context(_settings(**_PAPER)):
        draw(_PAPER).savefig(picture, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    page = {"ink": figures.INK, "faint": figures.FAINT}
    with matplotlib.rc_context(_settings(**page)):
        return Drawing(picture.getvalue(), figures.svg(draw(page), title, title))


def _settings(ink: str, faint: str) -> Any:
    """The settings of the charts of a report, in these colours."""
    told = {figures.INK: ink, figures.FAINT: faint}
    return {
        name: told.get(value, value) if isinstance(value, str) else value
        for name, value in figures.RC.items()
    }


def _panels(
    panels: Sequence[Panel],
    title: str,
    colours: Mapping[str, str],
    size: tuple[float, float],
    columns: int | None = None,
) -> Any:
    shown = panels[:MOST]
    columns = columns or (1 if len(shown) == 1 else 2)
    rows = -(-len(shown) // columns)
    width, height = size
    if columns > 1:
        width, height = 10.4, 2.5
    elif rows > 1:
        height = 2.3
    figure, grid = figures.axes(width, height * rows + 0.6, rows, columns)
    names = list(dict.fromkeys(one.name for panel in shown for one in panel.forecasts))
    # The first is the model, the others stand beside it: dashes tell them apart where they coincide.
    look = {
        name: style._replace(dash=figures.DASHES[i % len(figures.DASHES)])
        for i, (name, style) in enumerate(figures.styles(names).items())
    }
    cells = [ax for row in grid for ax in row]
    for ax in cells[len(shown) :]:
        ax.set_visible(False)
    for ax, panel in zip(cells, shown, strict=False):
        _panel(ax, panel, look, colours)
    _key(figure, shown, look, colours)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _panel(ax: Any, panel: Panel, look: Mapping[str, figures.Style], colours: Mapping[str, str]) -> None:
    ax.plot(panel.stamps, panel.values, color=colours["ink"], linewidth=1.0, zorder=3)
    for one in panel.forecasts:
        style = look[one.name]
        levels = sorted(one.bands)
        for level in reversed(levels):
            low, high = one.bands[level]
            shade = _SHADES[min(levels.index(level), len(_SHADES) - 1)]
            ax.fill_between(one.stamps, low, high, color=style.colour, alpha=shade, linewidth=0, zorder=1)
        first = style == next(iter(look.values()))
        ax.plot(
            one.stamps,
            one.point,
            color=style.colour,
            linestyle=style.dash,
            linewidth=1.6 if first else 1.2,
            zorder=5 if first else 4,
        )
    for cutoff in panel.cutoffs:
        ax.axvline(cutoff, color=colours["ink"], linewidth=0.7, alpha=0.45, linestyle=(0, (4, 3)), zorder=0)
    ax.set_title(figures.shortened(panel.title), fontsize=9.5)
    ax.margins(x=0.01)
    _limits(ax, panel)
    _plain(ax)
    _time_axis(ax, panel.stamps)


def _limits(ax: Any, panel: Panel) -> None:
    """Room for series and points, and for bands up to as much again: wilder ones would flatten the rest."""
    middle = np.concatenate([panel.values, *(one.point for one in panel.forecasts)]).astype(float)
    ends = [end for one in panel.forecasts for pair in one.bands.values() for end in pair]
    middle = middle[np.isfinite(middle)]
    if not len(middle):
        return
    low, high = middle.min(), middle.max()
    room = (high - low) or abs(high) or 1.0
    wide = np.concatenate(ends) if ends else middle
    wide = wide[np.isfinite(wide)]
    if len(wide):
        low, high = max(min(low, wide.min()), low - room), min(max(high, wide.max()), high + room)
    ax.set_ylim(low - 0.05 * (high - low or room), high + 0.05 * (high - low or room))


def _plain(ax: Any) -> None:
    """Short numbers at the ticks, unless one of them would read as another number: 372 for 372.5."""
    ticks = ax.get_yticks()
    near = 1e-3 * np.ptp(ticks)
    if all(abs(_read(figures.short(tick)) - tick) <= near for tick in ticks):
        ax.yaxis.set_major_formatter(lambda value, _: figures.short(value))


def _read(text: str) -> float:
    """The number that a short one stands for: 1500 for 1.5k."""
    unit = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1])
    return float(text) if unit is None else float(text[:-1]) * unit


def _time_axis(ax: Any, stamps: np.ndarray) -> None:
    """Dates said once each, numbers plainly."""
    if np.issubdtype(np.asarray(stamps).dtype, np.datetime64):
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=3, maxticks=8)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    else:
        ax.xaxis.set_major_formatter(lambda value, _: figures.short(value) if value % 1 else f"{value:.0f}")


def _key(
    figure: Any, panels: Sequence[Panel], look: Mapping[str, figures.Style], colours: Mapping[str, str]
) -> None:
    """One key for all panels, above them, at the right."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marks: list[Any] = [Line2D([], [], color=colours["ink"], linewidth=1.0, label="series")]
    for name, style in look.items():
        dash: Any = style.dash
        label = figures.shortened(name)
        marks.append(Line2D([], [], color=style.colour, linestyle=dash, linewidth=1.5, label=label))
    banded = {one.name: sorted(one.bands) for panel in panels for one in panel.forecasts if one.bands}
    for name, levels in banded.items():
        for i, level in enumerate(levels):
            shade = _SHADES[min(i, len(_SHADES) - 1)]
            marks.append(Patch(color=look[name].colour, alpha=shade, linewidth=0, label=f"{level:g} %"))
    figure.legend(handles=marks, loc="outside upper right", ncols=min(len(marks), 6), fontsize=8.5)
