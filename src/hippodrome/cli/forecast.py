"""`hippodrome forecast`: what comes after the end of each series of a table."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hippodrome.cli._data import Horizon, LookBack
from hippodrome.cli._options import Device, Json

PANEL = "Use a model"


def command(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="DATA|RUN", help="A CSV or Parquet table to learn from, or a run or race folder."
        ),
    ],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="TABLE", help="With a run: a table that ends where the forecast begins, or - for rows."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="DATA: the folder to make. [default: forecast-NAME] RUN: CSV or Parquet, instead of stdout."
        ),
    ] = None,
    horizon: Horizon = None,
    model: Annotated[str | None, typer.Option(help="A mixer, a pattern, or a recipe. [default: s4d]")] = None,
    budget: Annotated[str | None, typer.Option(help="Of training: 60s, 2m, 500steps. [default: 60s]")] = None,
    look_back: LookBack = None,
    width: Annotated[int | None, typer.Option(min=1, help="Channels of the model.")] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Layers.")] = None,
    level: Annotated[
        str | None, typer.Option(help="Bands in percent, with commas between. [default: 80,95]")
    ] = None,
    intervals: Annotated[
        str | None,
        typer.Option(
            metavar="quantiles|conformal",
            help="Of the bands. [default: conformal, where rows suffice]",
        ),
    ] = None,
    windows: Annotated[
        int | None, typer.Option(min=1, help="Of the backtest, a horizon apart. [default: 5]")
    ] = None,
    beside: Annotated[
        str | None,
        typer.Option(
            metavar="arima,ets,theta",
            help="Statistical models in the backtest too, by statsforecast. [default: none]",
        ),
    ] = None,
    refit: Annotated[
        str | None,
        typer.Option(help="Of training on, to the table's end, before the forecast. [default: 100steps]"),
    ] = None,
    targets: Annotated[
        str | None, typer.Option(help="Columns to forecast. [default: y, or all that are left]")
    ] = None,
    time: Annotated[str | None, typer.Option(help="The column of stamps. [default: by its name]")] = None,
    known: Annotated[
        str | None,
        typer.Option(help="Columns known ahead; the table's last rows, without targets, hold their future."),
    ] = None,
    observed: Annotated[str | None, typer.Option(help="Columns of covariates of the past alone.")] = None,
    static: Annotated[str | None, typer.Option(help="Columns with one value a series.")] = None,
    calendar: Annotated[bool, typer.Option("--calendar", help="Tell the model the calendar.")] = False,
    gaps: Annotated[
        str | None, typer.Option(metavar="refuse|fill", help="What to do with absent rows.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of PyTorch on the CPU.")] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="RUN -: read rows from stdin and forecast after each.")
    ] = False,
    every: Annotated[int | None, typer.Option(min=1, help="With --stream: after every so many rows.")] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="With --stream: a table of what came before. [default: the first rows of stdin]"),
    ] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Forecast the steps after the end of a table, with bands.

    DATA alone: train on it, backtest beside the seasonal naive forecast and DLinear (and ARIMA, exponential
    smoothing or theta, where asked), and write predictions, errors, pictures and a page into a folder, which
    appears whole or not at all.

    RUN TABLE: forecast with a model there is. A long table (unique_id, ds, y) gives a long one, a wide table
    a wide one with a column for each variate. RUN - --stream: read rows of CSV under a header from stdin, and
    forecast after each in constant time and memory.
    """
    from hippodrome.cli import _ahead, _rows

    training = {
        "horizon": horizon,
        "model": model,
        "budget": budget,
        "look_back": look_back,
        "width": width,
        "depth": depth,
        "intervals": intervals,
        "windows": windows,
        "beside": beside,
        "refit": refit,
        "targets": targets,
        "time": time,
        "known": known,
        "observed": observed,
        "static": static,
        "calendar": calendar or None,
        "gaps": gaps,
        "seed": seed,
    }
    streaming = {"every": every, "history": history}
    if source is None:
        _refuse({"stream": stream or None, **streaming}, "goes with a run and -: hippodrome forecast RUN -")
        _ahead.learned(first, training, level=level, out=out, threads=threads, device=device, json=json)
        return
    _refuse(training, f"is for training, and {first} was trained already: leave it out, or name DATA alone")
    if stream or source == "-":
        if source != "-" or not stream:
            raise ValueError("a stream is read from stdin: hippodrome forecast RUN - --stream")
        _refuse({"out": out}, "is for tables; a stream is written to stdout")
        _rows.streamed(
            first, level=level, every=every, history=history, device=device, threads=threads, json=json
        )
        return
    _refuse(streaming, "goes with --stream")
    _ahead.told(first, Path(source), level=level, out=out, device=device, threads=threads, json=json)


def _refuse(options: dict[str, Any], why: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"--{name.replace('_', '-')} {why}")
