"""`hippodrome forecast`: what comes after the end of each series of a table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hippodrome.cli._options import Device, Json, present
from hippodrome.cli._output import as_json

if TYPE_CHECKING:
    import pandas

PANEL = "Use a model"


def command(
    run: Annotated[Path, typer.Argument(help="A run folder of a forecaster, or a race's folder.")],
    source: Annotated[
        Path, typer.Argument(help="A CSV or Parquet table that ends where the forecast begins.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Write CSV or Parquet here instead of CSV on stdout.")
    ] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Forecast the steps after the end of a table, with quantiles.

    A long table (unique_id, ds, y) gives a long one, a wide table a wide one with a column for each variate.
    """
    from hippodrome.estimators import Forecaster, load

    forecaster = load(run, present(device))
    if not isinstance(forecaster, Forecaster):
        raise ValueError(f"{run} holds a model for {forecaster.run_.spec['kind']}, which forecasts nothing")
    found = forecaster.predict(_table(source))
    if json:
        as_json(found.to_dict("records"))
    elif out is None:
        typer.echo(found.to_csv(index=False), nl=False)
    elif out.suffix == ".parquet":
        found.to_parquet(out)
    else:
        found.to_csv(out, index=False)


def _table(path: Path) -> "pandas.DataFrame":
    """The table as it stands; a fault in it is told with file, row and column before anything is computed."""
    import pandas

    from hippodrome.data.tables import read_series

    if not path.exists():
        raise ValueError(f"there is no file {str(path)!r} to forecast from")
    read_series(path)
    if path.suffix == ".parquet":
        return pandas.read_parquet(path)
    return pandas.read_csv(path, sep=None, engine="python", dtype=str, keep_default_na=False)
