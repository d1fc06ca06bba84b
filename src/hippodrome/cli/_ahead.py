"""The work behind `hippodrome forecast`: learn a table and forecast it, or forecast with a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hippodrome.cli._options import command_line, numbers, present
from hippodrome.cli._output import as_json, table

if TYPE_CHECKING:
    import pandas

    from hippodrome.data._panel import Panel
    from hippodrome.data._table import Table
    from hippodrome.estimators import Forecaster

LEVELS = "80,95"
QUANTILES = (0.025, 0.1, 0.5, 0.9, 0.975)


def learned(
    path: Path,
    given: dict[str, Any],
    *,
    level: str | None,
    out: Path | None,
    threads: int | None,
    device: str,
    json: bool,
) -> None:
    """Train on a table, backtest, forecast, and write it all into a folder."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the table to go on from behind it, or a table alone")
    if given["horizon"] is None:
        raise ValueError("say how many steps to forecast: --horizon 96")
    levels = levels_of(LEVELS if level is None else level)
    windows, refit, beside = given.pop("windows"), given.pop("refit"), given.pop("beside")
    columns = {
        name: [part.strip() for part in value.split(",")]
        for name in ("targets", "known", "observed", "static")
        if (value := given.pop(name)) is not None
    }
    options = {name: value for name, value in given.items() if value is not None}
    frame = read(path)
    from hippodrome.data._panel import read_panel
    from hippodrome.estimators import Forecaster
    from hippodrome.estimators._reading import wanted
    from hippodrome.estimators.forecast_report import make

    limit(threads)
    options = {"budget": "60s", "intervals": "conformal", "device": present(device), **options, **columns}
    tails = sorted({(1 - one / 100) / 2 for one in levels})
    options["quantiles"] = tuple(tails + [0.5] + [1 - tail for tail in reversed(tails)])
    forecaster = Forecaster(**options)
    forecaster.shows_progress = not json
    frame, future = _split(frame, forecaster, path)
    # Read once here, so that a fault in a cell is told with the name of the file.
    panel = read_panel(_table(frame, path), wanted(forecaster))
    clock, longest = panel.reading.time, int(panel.counts.max())
    if (forecaster.look_back or 0) > longest:
        raise ValueError(
            f"{path}: --look-back {forecaster.look_back} is more than the longest series has, {longest} "
            f"rows. Take a shorter one"
        )
    thin = given["intervals"] is None and not _enough(panel, forecaster, windows or 5, levels[-1])
    if thin:
        forecaster.set_params(intervals="quantiles")
    name = path.name.split(".")[0]
    made = make(
        forecaster,
        frame,
        Path(f"forecast-{name}") if out is None else out,
        name=name,
        source=str(path),
        future=_told_ahead(future, forecaster, clock),
        windows=windows or 5,
        level=levels,
        beside=[] if beside is None else [name.strip() for name in beside.split(",")],
        refit=refit or "100steps",
        command=command_line(),
        on_stage=(lambda stage: None) if json else lambda stage: typer.echo(f"{stage} ...", err=True),
    )
    if json:
        told = {"folder": str(made.folder), "verdict": made.verdict}
        as_json({**told, "metrics": made.metrics.to_dict("records")})
        return
    ids = list(dict.fromkeys(made.metrics["unique_id"]))
    rows = made.metrics[made.metrics["unique_id"] == ids[0]]
    models = [column for column in rows.columns if column not in ("unique_id", "metric")]
    cells = [[row["metric"], *(f"{row[m]:.4g}" for m in models)] for row in rows.to_dict("records")]
    table(f"the backtest on {name}", ["error", *models], cells, named=True)
    typer.echo()
    for sentence in made.verdict:
        typer.echo(sentence)
    if thin:
        typer.echo("The bands are the model's quantiles: there are too few rows to score conformal ones.")
    typer.echo(f"\nreport: {made.folder / 'report.html'}\npredictions: {made.folder / 'predictions.csv'}")


def told(
    run: Path,
    source: Path,
    *,
    level: str | None,
    out: Path | None,
    device: str,
    threads: int | None,
    json: bool,
) -> None:
    """Forecast a table with the model of a run."""
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise ValueError(f"--out names a file in a folder that is there; got {out}")
    forecaster = opened(run, device)
    limit(threads)
    frame, rest = _split(read(source), forecaster, source)
    # Read once here, so that a fault in a cell is told with the name of the file.
    going_on: Any = _table(frame, source)
    clock = forecaster._panel(going_on, None).reading.time
    future = _told_ahead(rest, forecaster, clock)
    found = forecaster.predict(frame, None, future, None if level is None else levels_of(level))
    if json:
        as_json(found.to_dict("records"))
    elif out is None:
        typer.echo(found.to_csv(index=False), nl=False)
    else:
        write(found, out)


def opened(run: Path, device: str) -> "Forecaster":
    """The forecaster of a run folder."""
    from hippodrome.estimators import Forecaster, load

    forecaster = load(run, present(device))
    if not isinstance(forecaster, Forecaster):
        raise ValueError(f"{run} holds a model for {forecaster.run_.spec['kind']}, which forecasts nothing")
    return forecaster


def levels_of(text: str) -> list[float]:
    """Levels in percent, each once, the lowest first."""
    found = sorted(set(numbers(text, "--level")))
    for one in found:
        if not 0 < one < 100:
            raise ValueError(f"--level takes shares in percent between 0 and 100, such as 80,95; got {one:g}")
    return found


def limit(threads: int | None) -> None:
    """Let PyTorch compute on so many threads."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def read(path: Path) -> "pandas.DataFrame":
    """The table as it stands, its cells as text where they come from CSV."""
    import pandas

    if not path.exists():
        raise ValueError(f"there is no file {str(path)!r} to forecast from")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; a forecast goes on from a table, CSV or Parquet")
    from hippodrome.data._panel import table_of

    found, _ = table_of(path)  # which is strict, and names a fault by file, row and column
    return pandas.DataFrame(dict(found.columns))


def write(found: "pandas.DataFrame", out: Path) -> None:
    """A table as CSV or Parquet, in one piece."""
    from io import BytesIO

    from hippodrome.train.checkpoint import write_atomically

    content = BytesIO()
    if out.suffix == ".parquet":
        found.to_parquet(content)
    else:
        found.to_csv(content, index=False)
    write_atomically(out, lambda file: file.write(content.getvalue()))


def _split(
    frame: "pandas.DataFrame", forecaster: "Forecaster", path: Path
) -> "tuple[pandas.DataFrame, pandas.DataFrame | None]":
    """The rows to go on from, and those behind the last one with a target, which say what is known ahead."""
    if not forecaster.known:
        return frame, None
    from hippodrome.data._table import MISSING

    targets = list(forecaster.targets or ["y"])
    absent = [name for name in targets if name not in frame.columns]
    if absent:
        raise ValueError(
            f"{path}: with --known name the columns to forecast too: --targets NAME,NAME; there is no column "
            f"{absent[0]!r}"
        )
    cells = frame[targets].astype(str).map(lambda cell: cell.strip().lower() not in MISSING)
    seen = cells.any(axis=1)
    if "unique_id" in frame.columns:
        reversed_rows = seen[::-1].groupby(frame["unique_id"][::-1], sort=False)
        past = reversed_rows.cummax()[::-1]
    else:
        past = seen[::-1].cummax()[::-1]
    if past.all():
        raise ValueError(
            f"{path}: what is known ahead ({', '.join(forecaster.known)}) is read from rows behind the last "
            f"one that has a target; there are none. Add {forecaster.horizon} rows whose targets are empty"
        )
    return frame[past], frame[~past]


def _enough(panel: "Panel", forecaster: "Forecaster", windows: int, level: float) -> bool:
    """Whether the validation part before the first cutoff has the windows that a conformal band needs."""
    import numpy as np

    h = forecaster.horizon
    rows = panel.counts - windows * h
    kept = np.maximum(np.floor(forecaster.validation * rows), h)
    there = np.where(rows - kept > h, kept - h + 1, 0).sum()
    return bool(there >= level / (100 - level))


def _told_ahead(
    rest: "pandas.DataFrame | None", forecaster: "Forecaster", clock: str | None
) -> "pandas.DataFrame | None":
    """Of the rows behind the end the stamps and what is known."""
    kept = ("unique_id", clock, *forecaster.known)
    return None if rest is None else rest[[name for name in rest.columns if name in kept]]


def _table(frame: "pandas.DataFrame", path: Path) -> "Table":
    """The frame as a table that says what file it is of."""
    from hippodrome.data._table import Table

    return Table(str(path), {str(name): frame[name].to_numpy() for name in frame.columns}, len(frame))
