"""From a table to a folder with a forecast: training, backtest, pictures and a page that opens offline."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hippodrome.analyze import figures
from hippodrome.estimators import _charts
from hippodrome.estimators.backtest import NAIVE, Backtest, levels_of, metrics
from hippodrome.estimators.forecaster import Forecaster
from hippodrome.estimators.statistical import Statistical
from hippodrome.train.checkpoint import check_folder, write_folder
from hippodrome.train.settings import Budget

if TYPE_CHECKING:
    import pandas

LINEAR = "dlinear"
"""The recipe of the linear map that stands beside a model."""
SEASONS = 28
"""Seasons before a window that a statistical model reads: longer ones cost much and tell it little."""
SHOWN = 12
"""Series whose errors are in the page; the files have all."""
_HERE = Path(__file__).parent

OnStage = Callable[[str], None]


class Made(NamedTuple):
    """What was made: the folder, the predictions, the errors of the backtest, and a sentence about them."""

    folder: Path
    predictions: "pandas.DataFrame"
    metrics: "pandas.DataFrame"
    verdict: list[str]


def make(
    forecaster: Forecaster,
    df: "pandas.DataFrame",
    folder: Path,
    *,
    name: str,
    source: str = "data frame",
    future: "pandas.DataFrame | None" = None,
    windows: int = 5,
    step: int | None = None,
    level: Sequence[int | float] | None = None,
    season: int | None = None,
    linear: bool = True,
    beside: Sequence[str] = (),
    refit: str = "100steps",
    command: str = "",
    on_stage: OnStage = lambda stage: None,
) -> Made:
    """Backtest a forecaster on the last windows of a table, train on to its end, forecast, and write it all.

    What is written appears whole or not at all: ``predictions.csv``, ``metrics.csv``, ``backtest.csv``,
    ``forecast.png``, ``backtest.png``, ``components.png`` for a model whose forecast is a sum of parts,
    ``report.html``, and the run folder ``run``.

    Args:
        forecaster: its arguments are what counts; it stays as it is.
        df: the series.
        folder: to be made.
        name: of the data, for titles.
        source: where the data are from, for the page.
        future: of covariates that are known ahead.
        windows: of the backtest.
        step: rows from one cutoff to the next; None takes the horizon.
        level: bands, in percent.
        season: rows of a season; None takes it from the stamps.
        linear: whether DLinear is trained beside the model, for as long, without covariates.
        beside: statistical models whose windows stand beside the model's: names of ``statistical.NAMES``.
        refit: budget of the training on the last windows too, with which the forecast is made.
        command: that this was asked by.
        on_stage: told what is done next.

    Raises:
        ValueError: a folder that is there, or what ``Forecaster`` and ``Backtest`` refuse.
    """
    check_folder(folder)
    for budget in (forecaster.budget, refit):
        Budget.parse(budget)  # a fault in one is told before anything is trained
    backtest = Backtest(forecaster, df, None, windows, step)
    others = [Statistical(each, backtest.h).checked() for each in dict.fromkeys(beside)]
    season = backtest.panel.usual.season if season is None else season
    on_stage(f"training {forecaster.model} on what lies before the first of {windows} windows")
    frame = backtest.run(level=level)
    frame[NAIVE] = backtest.seasonal_naive(season)
    names = [forecaster.model, NAIVE]
    if linear and forecaster.model != LINEAR:
        on_stage(f"training {LINEAR} beside it")
        other = _linear(forecaster, backtest)
        frame[LINEAR] = Backtest(other, df, None, windows, step).run()[LINEAR]
        names.append(LINEAR)
    history = SEASONS * (season if season > 1 else 24)
    for each in others:
        on_stage(f"fitting {each.name} before each window")
        each.season, each.history = season, history
        frame = frame.join(each.beside(backtest, level)) if each.name not in frame else frame
    told = [each.name for each in others if each.name != NAIVE]
    names += told
    on_stage("measuring")
    errors = metrics(frame, names, _long(backtest), season)
    trained = backtest.trained
    on_stage("training on, to the end of the table")
    trained.refit(df, None, refit)
    predictions = trained.predict(None, None, future, level)
    verdict = _verdict(errors, names, windows, frame["unique_id"].nunique(), season)
    verdict += trained._fitted().details.get("notes", [])
    if told:
        verdict.append(f"{' and '.join(told)} knew the last {history} rows before each window.")
    on_stage("drawing")
    drawings = _drawings(backtest, trained, frame, predictions, future, names, name)
    page = _page(trained, name, source, verdict, errors, names, drawings, command, backtest, season)

    def fill(place: Path) -> None:
        for file, table in (("predictions", predictions), ("metrics", errors), ("backtest", frame)):
            table.to_csv(place / f"{file}.csv", index=False)
        for file, drawing in drawings.items():
            (place / f"{file}.png").write_bytes(drawing.png)
        (place / "report.html").write_text(page, encoding="utf-8")
        trained.save(place / "run")

    write_folder(folder, fill)
    return Made(folder, predictions, errors, verdict)


def _linear(forecaster: Forecaster, backtest: Backtest) -> Forecaster:
    """DLinear with what it can be told of."""
    asked = forecaster.get_params()
    kept = ("horizon", "look_back", "time", "gaps", "frequencies", "scaler", "validation", "budget", "seed")
    made = Forecaster(model=LINEAR, **{name: asked[name] for name in (*kept, "device")})
    made.set_params(targets=list(backtest.panel.reading.targets or ()), quantiles=())
    return made


def _long(backtest: Backtest) -> "pandas.DataFrame":
    """What lies before the first cutoffs: ``unique_id, ds, y``."""
    import pandas

    panel, parts = backtest.panel, []
    for i, (low, end) in enumerate(zip(panel.offsets[:-1], backtest.ends[:, 0], strict=True)):
        part = slice(low, low + max(end, 0))
        for j, key in enumerate(backtest.names(i)):
            columns = {"unique_id": key, "ds": panel.times[part], "y": panel.values[part, j]}
            parts.append(pandas.DataFrame(columns))
    return pandas.concat(parts, ignore_index=True)


def _verdict(
    errors: "pandas.DataFrame", names: Sequence[str], windows: int, series: int, season: int
) -> list[str]:
    """Sentences for a person: the error beside the others', and whether the bands hold."""
    table = errors[errors["unique_id"] == "mean"] if series > 1 else errors
    rows: Any = table.set_index("metric")
    model, others = names[0], names[1:]
    own = rows.loc["mae", model]
    where = f"{windows} window{'s' * (windows > 1)}" + (f" of {series} series" if series > 1 else "")
    said = []
    best = min(others, key=lambda other: rows.loc["mae", other])
    least = rows.loc["mae", best]
    way = "less" if own < least else "more"
    # Of nothing there are no percent.
    share = f"{100 * abs(1 - own / least):.0f} % {way}" if least else way
    said.append(
        f"{model}: its mean absolute error over {where} is {own:.4g}, {share} "
        f"than that of {best} ({least:.4g})."
    )
    if own >= least:
        said.append(f"On this evidence take {best}, or train {model} for longer.")
    held = [
        f"the {metric.removeprefix('coverage-')} % band {100 * rows.loc[metric, model]:.0f} %"
        for metric in rows.index
        if metric.startswith("coverage-")
    ]
    if held:
        said.append(f"Of what came, {' and '.join(held)} held.")
    if season < 2:
        said.append(f"No season is known of these stamps, so {NAIVE} repeats the last value.")
    return said


def _drawings(
    backtest: Backtest,
    trained: Forecaster,
    frame: "pandas.DataFrame",
    predictions: "pandas.DataFrame",
    future: Any,
    names: Sequence[str],
    title: str,
) -> dict[str, _charts.Drawing]:
    """The charts, by the names of their files."""
    h = backtest.h
    ahead, behind = [], []
    for key, times, values, own in _series(backtest, predictions, trained.model):
        rows = frame[frame["unique_id"] == key]
        shown = max(3 * h, 48)
        ahead.append(_charts.Panel(key, times[-shown:], values[-shown:], [own], times[-1:]))
        cutoffs = rows["cutoff"].unique()
        told = [_gap(rows, model, cutoffs) for model in names]
        first = int(np.searchsorted(times, np.asarray(cutoffs)[0]))
        part = slice(max(0, first - max(2 * h, 24)), None)
        behind.append(_charts.Panel(key, times[part], values[part], told, cutoffs))
        if len(ahead) == _charts.MOST:
            break
    count = frame["unique_id"].nunique()
    many = f", {len(ahead)} of {count} series" if count > _charts.MOST else ""
    found = {
        "forecast": _charts.forecast(ahead, f"{title}: {len(ahead[0].forecasts[0].point)} steps ahead{many}"),
        "backtest": _charts.backtest(behind, f"{title}: the backtest{many}"),
    }
    parts = _components(trained, future)
    if len(parts) > 2:
        total = np.sum(list(parts.values()), 0)
        stamps = ahead[0].forecasts[0].stamps
        found["components"] = _charts.components(
            stamps, parts, total, f"What the forecast of {ahead[0].title} is the sum of"
        )
    return found


def _series(backtest: Backtest, predictions: "pandas.DataFrame", model: str) -> Any:
    """Name, stamps, values and forecast of each variate of each series."""
    panel = backtest.panel
    for i, (low, high) in enumerate(zip(panel.offsets, panel.offsets[1:], strict=False)):
        rows = predictions[predictions["unique_id"] == panel.keys[i]] if panel.long else predictions
        keys = backtest.names(i)
        for j, key in enumerate(keys):
            name = model if panel.long and len(keys) == 1 else list(panel.reading.targets or ())[j]
            yield key, panel.times[low:high], panel.values[low:high, j], _one(rows, name, model)


def _one(rows: "pandas.DataFrame", column: str, name: str) -> _charts.Forecast:
    bands = {
        float(level): (rows[f"{column}-lo-{level}"].to_numpy(), rows[f"{column}-hi-{level}"].to_numpy())
        for level in levels_of(rows, column)
    }
    return _charts.Forecast(name, rows["ds"].to_numpy(), rows[column].to_numpy(), bands)


def _gap(rows: "pandas.DataFrame", model: str, cutoffs: Any) -> _charts.Forecast:
    """A model's windows as one forecast, with a gap between two so that no line joins them."""
    parts = [_one(rows[rows["cutoff"] == cutoff], model, model) for cutoff in cutoffs]

    def joined(pieces: Sequence[np.ndarray], stamps: bool = False) -> np.ndarray:
        return np.concatenate([part for one in pieces for part in (one, one[-1:] if stamps else [np.nan])])

    bands = {
        level: (joined([p.bands[level][0] for p in parts]), joined([p.bands[level][1] for p in parts]))
        for level in parts[0].bands
    }
    stamps = joined([p.stamps for p in parts], True)
    return _charts.Forecast(model, stamps, joined([p.point for p in parts]), bands)


def _components(trained: Forecaster, future: Any) -> dict[str, np.ndarray]:
    """The named parts (h,) of the point forecast of the first variate of the first series."""
    import torch

    from hippodrome.data._fitting import own_scales, scaled
    from hippodrome.estimators._frames import ahead_of

    model = trained._network
    if not hasattr(model, "components"):
        return {}
    panel = trained._panel(None, None)
    location, scale = np.zeros((1, 1)), np.ones((1, 1))
    if trained._fitted().details.get("scaler") == "local":
        location, scale = own_scales(panel)
        panel = scaled(panel, location, scale)
    ahead = ahead_of(panel, model.horizon, model.horizon, panel.reading, future)
    end = int(panel.offsets[1])
    columns = [panel.values, *(part for part in (panel.observed, panel.known) if part is not None)]
    rows = np.concatenate(columns, 1)[max(0, end - model.look_back) : end]
    rows = np.concatenate([np.full((model.look_back - len(rows), rows.shape[1]), np.nan), rows])

    def told(values: np.ndarray | None) -> Any:
        device = model.location.device
        return None if values is None else torch.from_numpy(values[:1].astype(np.float32)).to(device)

    dt = None
    if panel.dt is not None:
        dt = np.ones(model.look_back)
        own = panel.dt[max(0, end - model.look_back) : end]
        dt[model.look_back - len(own) :] = own
    with torch.no_grad():
        parts = model.components(
            told(rows[None]),
            dt=told(None if dt is None else dt[None]),
            known=told(ahead.known),
            static=told(panel.static),
        )
    found = {name: part[0, :, 0].double().cpu().numpy() * scale[0, 0] for name, part in parts.items()}
    if "level" in found:
        found["level"] = found["level"] + location[0, 0]
    return found


def _page(
    trained: Forecaster,
    title: str,
    source: str,
    verdict: Sequence[str],
    errors: "pandas.DataFrame",
    names: Sequence[str],
    drawings: dict[str, _charts.Drawing],
    command: str,
    backtest: Backtest,
    season: int,
) -> str:
    """The page as text."""
    from importlib.metadata import version

    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    run, panel = trained._fitted(), backtest.panel
    reading = panel.reading
    ids = list(dict.fromkeys(errors["unique_id"]))
    facts = {
        "source": source,
        "series": f"{len(ids) - (len(ids) > 1):,}",  # the first of several is their mean
        "rows": f"{len(panel.times):,}",
        "forecast": ", ".join(reading.targets or ()),
        "sampling": run.details.get("sampling", ""),
        "season": f"{season} rows" if season > 1 else "none known",
        "missing values": f"{int(np.isnan(panel.values).sum()):,}",
        "covariates of the past": ", ".join(reading.observed),
        "known ahead": ", ".join([*reading.known, *(["the calendar"] if reading.calendar else [])]),
        "static": ", ".join(reading.static),
    }
    settings = {
        "model": trained.model,
        "parameters": f"{sum(p.numel() for p in run.model.parameters()):,}",
        "look-back": run.spec["look_back"],
        "horizon": run.spec["horizon"],
        "quantiles": ", ".join(f"{q:g}" for q in run.spec["quantiles"]),
        "bands": "conformal" if trained.conformal_ is not None else "the model's quantiles",
        "scales": "of each series" if run.details.get("scaler") == "local" else "the same for all",
        "training for the backtest": trained.budget,
        "training on, to the end": str(run.settings.budget),
        "seed": trained.seed,
    }
    shown = [key for key in ids if key != "mean"][:SHOWN]
    return environment.get_template("forecast_report.html.j2").render(
        title=title,
        style=Markup(figures.STYLE.read_text(encoding="utf-8")),
        verdict=verdict,
        charts={name: Markup(one.svg) for name, one in drawings.items()},
        names=names,
        tables={key: errors[errors["unique_id"] == key].to_dict("records") for key in (ids[:1] + shown)},
        many=len(ids) > 1,
        left=len(ids) - 1 - len(shown) if len(ids) > 1 else 0,
        windows=backtest.ends.shape[1],
        h=backtest.h,
        facts={name: value for name, value in facts.items() if value},
        settings=settings,
        command=command,
        version=version("hippodrome"),
        number=_number,
    )


def _number(value: float, metric: str) -> str:
    """A cell: shares in percent, errors with four digits."""
    if not np.isfinite(value):
        return "-"
    return f"{100 * value:.1f} %" if metric.startswith(("coverage", "smape")) else f"{value:.4g}"
