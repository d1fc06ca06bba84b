"""The report: one HTML file that opens offline, prints, and reads on light and on dark paper."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hippodrome.analyze import figures
from hippodrome.race import charts
from hippodrome.race.files import write_text
from hippodrome.race.result import Estimate, RaceResult
from hippodrome.race.verdict import (
    count,
    duration,
    interval_decimals,
    number,
    quality,
    short_unit,
    size,
    unit,
    with_interval,
)

_HERE = Path(__file__).parent


def render(result: RaceResult) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "duration": duration,
        "number": number,
        "size": size,
        "svg": Markup,
        "visible": lambda text: text.replace(" ", "␣").replace("\n", "↵\n"),
    }
    look = charts.looks(result)
    return environment.get_template("report.html.j2").render(
        result=result,
        style=Markup(figures.STYLE.read_text(encoding="utf-8")),
        swatches={name: Markup(charts.swatch(style)) for name, style in look.items()},
        unit=unit,
        short=short_unit,
        column=lambda field, metric: _column(result, field, metric),
        quality=quality,
        metrics=_shown_metrics(result),
        curves=charts.curves(result, look),
        trade=charts.trade(result, look),
        pairs=charts.pairs(result, look),
        lengths=charts.lengths(result, look),
        forecasts=charts.forecasts(result, look),
        confusion=charts.confusion(result, look),
        attention=any(
            s.name in ("attention", "bi-attention") and s.scaling is not None for s in result.standings
        ),
        partial=_partial(result),
        details=_flat(result.details),
        settings=_flat(result.settings),
    )


def write(result: RaceResult, path: Path) -> Path:
    """Write the page in one piece, and give its path back."""
    write_text(path, render(result))
    return path


def _column(result: RaceResult, field: str, metric: str) -> dict[str, str]:
    """The cells of one column of estimates by contender, with as many decimals in all of them."""
    found: dict[str, Estimate] = {}
    for s in result.finished:
        value = s.tests.get(metric) if field == "tests" else getattr(s, field)
        if value is not None:
            found[s.name] = value if field != "tests" else value.model_copy(update={"half": None})
    if not found:
        return {}
    decimals = sorted(interval_decimals(e, metric) for e in found.values())[len(found) // 2]
    return {name: with_interval(e, metric, decimals) for name, e in found.items()}


def _partial(result: RaceResult) -> int | None:
    """How many batches a validation on the way looked at, where that was not all of them."""
    batches, rows = result.settings.get("valid batches"), result.details.get("rows")
    if not isinstance(batches, int) or not isinstance(rows, dict):
        return None
    size = int(result.settings.get("batch size", 1))
    return batches if batches * size < rows.get("valid", 0) else None


def _shown_metrics(result: RaceResult) -> list[str]:
    """The other metrics on test beside the one that decides, in the order in which the model names them."""
    found = [m for s in result.finished for m in s.tests] + [m for n in result.naive.values() for m in n]
    return [m for m in dict.fromkeys(found) if m != result.metric and m != "nats"][:3]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested facts as lines: a dotted name and a short text."""
    lines: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            simple = all(not isinstance(v, Mapping | list | tuple) for v in value.values())
            if simple and len(value) <= 16:
                lines[name] = ", ".join(f"{k} {_text(v)}" for k, v in value.items())
            else:
                lines |= _flat(value, f"{name}: ")
        else:
            lines[name] = _text(value)
    return lines


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        text = ", ".join(_text(v) for v in value[:12])
        return text + (f", … ({len(value)} in all)" if len(value) > 12 else "")
    return str(value)
