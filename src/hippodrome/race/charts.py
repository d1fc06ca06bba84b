"""The charts of a report, each an SVG drawn from a result: same colour for a model in all of them."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hippodrome.analyze import figures, slopes
from hippodrome.analyze.figures import Band, Line, Point, Style
from hippodrome.race.result import CurvePoint, RaceResult, Standing, Trial
from hippodrome.race.verdict import SHARES, spread, unit

AFTER = {"-": "--", "--": "-", "-.": ":", ":": "-."}
"""The dash of the pretrained one beside that of its twin."""


class Chart(NamedTuple):
    """One drawing and the sentence under it."""

    svg: str
    caption: str = ""


def looks(result: RaceResult) -> dict[str, Style]:
    """A style for each contender, by the order of their names, so that it does not change with the rank.

    A pretrained one has the colour and the marker of its twin, and another dash.
    """
    named = figures.styles(sorted(s.name for s in result.standings if s.scratch is None))
    twins = {s.name: named[s.scratch] for s in result.standings if s.scratch is not None}
    return named | {name: style._replace(dash=AFTER[style.dash]) for name, style in twins.items()}


def swatch(style: Style) -> str:
    """A stroke with its marker, as it is in the charts: for keys and tables."""
    index = figures.COLOURS.index(style.colour)
    colour = f"var(--model-{index}, {style.colour})"
    dash = {"-": "", "--": "5 2.5", "-.": "6 2 1.5 2", ":": "1.5 2"}[style.dash]
    shapes = {
        "o": '<circle cx="13" cy="6" r="3.4"/>',
        "s": '<path d="M9.8 2.8h6.4v6.4h-6.4z"/>',
        "^": '<path d="M13 2l4 7.4h-8z"/>',
        "D": '<path d="M13 1.6l4.4 4.4-4.4 4.4-4.4-4.4z"/>',
        "v": '<path d="M13 10l4-7.4h-8z"/>',
        "P": '<path d="M11.6 2h2.8v2.6H17v2.8h-2.6V10h-2.8V7.4H9V4.6h2.6z"/>',
        "X": '<path d="M10 2l3 2.6L16 2l1 1-2.6 3L17 9l-1 1-3-2.6L10 10 9 9l2.6-3L9 3z"/>',
        "*": '<path d="M13 1l1.4 3.4 3.6.2-2.8 2.3 1 3.6L13 8.5l-3.2 2 1-3.6L8 4.6l3.6-.2z"/>',
    }
    return (
        f'<svg class="swatch" viewBox="0 0 26 12" aria-hidden="true" style="color: {colour}">'
        f'<path d="M0 6h26" stroke="currentColor" stroke-width="2" stroke-dasharray="{dash}" fill="none"/>'
        f'<g fill="currentColor">{shapes[style.marker]}</g></svg>'
    )


def curves(result: RaceResult, look: dict[str, Style]) -> list[Chart]:
    """Validation against time and tokens, and the training loss against both."""
    runs = [(s, t) for s in result.standings if (t := typical(s, result.better)) is not None]
    clocks: tuple[tuple[str, Callable[[CurvePoint], float]], ...] = (
        ("seconds of training", lambda p: p.seconds),
        ("tokens", lambda p: float(p.tokens)),
    )
    known, scale = _naive(result), _scale(result.metric)
    charts = []
    for title, field, axis in (
        ("Validation", "valid", axis_of(result.metric)),
        ("Training loss (smoothed)", "train", "loss"),
    ):
        for clock, place in clocks:
            factor = scale if field == "valid" else 1.0
            drawn = (_curve(s.name, _after(t), field, place, factor) for s, t in runs)
            series = [line for line in drawn if line is not None]
            if not series:
                continue
            low, high = _window(series, result.better if field == "valid" else "lower", scale)
            rules = {n: v for n, v in known.items() if low <= v <= high} if field == "valid" else {}
            charts.append(
                Chart(
                    figures.lines(
                        series,
                        look,
                        title=f"{title} against {clock.split()[0]}",
                        x=clock,
                        y=axis,
                        y_limits=(low, high),
                        rules=rules,
                        rules_left=result.better == "lower",
                    )
                )
            )
    return charts


def _after(trial: Trial) -> list[CurvePoint]:
    """The curve of a run, begun where its pretraining ended: the axis is all that was spent."""
    first = trial.before
    if first is None:
        return trial.curve
    return [
        p.model_copy(update={"seconds": p.seconds + first.seconds, "tokens": p.tokens + first.tokens})
        for p in trial.curve
    ]


def typical(standing: Standing, better: str) -> Trial | None:
    """The run of the chosen learning rate that ended nearest the middle; of a fallen one the longest."""
    chosen = standing.chosen
    if not chosen:
        return max(standing.trials, key=lambda t: t.steps, default=None)
    metric = {key for t in chosen for key in t.valid}
    if standing.valid is None or not metric:
        return chosen[0]
    middle = sorted(standing.valid.values)[len(standing.valid.values) // 2]
    return min(zip(chosen, standing.valid.values, strict=False), key=lambda pair: abs(pair[1] - middle))[0]


def _curve(
    name: str, points: Sequence[CurvePoint], field: str, place: Callable[[CurvePoint], float], factor: float
) -> Line | None:
    kept = [
        (place(p), factor * v) for p in points if (v := getattr(p, field)) is not None and math.isfinite(v)
    ]
    if len(kept) < 2:
        return None
    xs, ys = [x for x, _ in kept], [y for _, y in kept]
    if field == "train":
        ys = _smooth(ys, max(1.0, len(ys) / 20))
    return Line(name, xs, ys, markers=field == "valid" and len(xs) <= 30)


def _smooth(values: Sequence[float], span: float) -> list[float]:
    """An exponential moving average over about ``span`` values, started without bias."""
    keep = math.exp(-1 / span)
    total = weight = 0.0
    out = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        out.append(total / weight)
    return out


def _naive(result: RaceResult) -> dict[str, float]:
    """The rules that know the deciding metric, on the scale of the charts."""
    scale = _scale(result.metric)
    return {n: scale * m[result.metric] for n, m in result.naive.items() if result.metric in m}


def _scale(metric: str) -> float:
    return 100.0 if metric in SHARES else 1.0


def axis_of(metric: str) -> str:
    """A metric's name on an axis."""
    return f"{unit(metric)}, %" if metric in SHARES else unit(metric)


def _window(series: Sequence[Line], better: str, most: float) -> tuple[float, float]:
    """Limits that cut the steep beginning off, so that the end, which decides, can be read."""
    reach = max(line.x[-1] for line in series)
    early: list[float] = []
    for line in series:
        late = [y for x, y in zip(line.x, line.y, strict=True) if x >= 0.2 * reach] or [line.y[-1]]
        early += late
    low, high = min(early), max(early)
    room = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    return (
        (low - room, high + room)
        if better == "lower"
        else (low - room, min(high + room, max(1.02 * most, high)))
    )


def trade(result: RaceResult, look: dict[str, Style]) -> list[Chart]:
    """Quality on test against what it costs to run."""
    charts = []
    known, factor = _naive(result), _scale(result.metric)
    done = [s for s in result.finished if s.test is not None]
    values = [factor * s.test.mean for s in done if s.test is not None]
    if not values:
        return []
    margin = 0.5 * (max(values) - min(values)) or 0.05 * abs(values[0])
    rules = {n: v for n, v in known.items() if min(values) - margin <= v <= max(values) + margin}
    for title, axis, field in (
        ("Quality against the time of a token", "milliseconds for one more token", "step_seconds"),
        ("Quality against the state", "KiB of state for each row", "state_bytes"),
    ):
        scale = 1e3 if field == "step_seconds" else 1 / 1024
        points = [
            Point(s.name, cost * scale, factor * s.test.mean, s.test.half and factor * s.test.half)
            for s in done
            if s.test is not None and (cost := getattr(s, field))
        ]
        if len(points) > 1:
            charts.append(
                Chart(
                    figures.scatter(
                        points, look, title=title, x=axis, y=f"{axis_of(result.metric)} on test", rules=rules
                    )
                )
            )
    return charts


def pairs(result: RaceResult, look: dict[str, Style]) -> list[Chart]:
    """Each model from scratch and pretrained, on test: how far they lie apart with and without."""
    factor = _scale(result.metric)
    shown = [
        slopes.Slope(one.name, factor * one.test.mean, factor * other.test.mean)
        for one, other in result.pairs
        if one.test is not None and other.test is not None
    ]
    if not shown:
        return []
    rules = _naive(result) if result.better == "higher" else {}
    svg = slopes.slopes(
        shown, look, title="From scratch and pretrained", ends=("from scratch", "pretrained"),
        y=f"{axis_of(result.metric)} on test", rules=rules,
    )  # fmt: skip
    return [Chart(svg, spread(result))]


def lengths(result: RaceResult, look: dict[str, Style]) -> list[Chart]:
    """Time and memory of one forward pass, and time of one step, against length."""
    measured = [s for s in result.standings if s.scaling is not None and s.scratch is None]
    charts = []
    for title, axis, field, factor in (
        ("One forward pass", "milliseconds", "forward_seconds", 1e3),
        ("Memory of that pass", "MiB", "forward_bytes", 1 / (1 << 20)),
        ("One more token after so many", "milliseconds", "step_seconds", 1e3),
    ):
        series = []
        ticks: set[int] = set()
        for s in measured:
            data: Any = s.scaling
            pairs = [
                (t, v * factor)
                for t, v in zip(data.lengths, getattr(data, field), strict=True)
                if v is not None
            ]
            if len(pairs) > 1:
                series.append(Line(s.name, [t for t, _ in pairs], [v for _, v in pairs], markers=True))
            ticks |= set(data.lengths)
        if series:
            charts.append(
                Chart(
                    figures.lines(
                        series,
                        look,
                        title=title,
                        x="frames" if result.kind == "video" else "tokens",
                        y=axis,
                        log_x=True,
                        log_y=True,
                        x_ticks=sorted(ticks),
                    )
                )
            )
    return charts


def forecasts(result: RaceResult, look: dict[str, Style]) -> list[Chart]:
    """The winner's forecast with its band beside the naive rule's, one chart for each window shown."""
    charts = []
    winner = result.winner or ""
    style = {**look}
    for shown in result.exhibits.forecasts:
        rules = [n for n in shown.points if n not in look]
        for n in rules:
            style[n] = Style("#7A7A7A", "o", "--")
        names = [n for n in (*rules, winner) if n in shown.points]
        bands = [Band(n, shown.points[n], shown.low.get(n), shown.high.get(n)) for n in names]
        charts.append(
            Chart(
                figures.forecast(
                    shown.past, shown.truth, bands, style, title=shown.title, x="steps", y="value"
                ),
                shown.coverage,
            )
        )
    return charts


def confusion(result: RaceResult, look: dict[str, Style]) -> list[Chart]:
    """The winner's confusion matrix."""
    shown = result.exhibits.confusion
    if shown is None or result.winner is None:
        return []
    colour = look[result.winner].colour
    title = f"Answers of {result.winner} on test"
    return [Chart(figures.matrix(shown.counts, shown.classes, colour, title=title))]
