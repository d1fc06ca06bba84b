"""`hippodrome impute`: the holes of a table filled in, with bands, a plot, and a score on hidden cells."""

import json as plain_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hippodrome.cli._options import Device, Json, present
from hippodrome.cli._tables import frame_of, refuse_beside_run, results_folder, told

if TYPE_CHECKING:
    from hippodrome.estimators import Imputer

PANEL = "Use a model"


def command(
    source: Annotated[Path, typer.Argument(help="A CSV or Parquet table, long (unique_id, ds, y) or wide.")],
    run: Annotated[
        Path | None, typer.Option(help="A run folder of an imputer to fill with, instead of training one.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="A mixer or a pattern; bi-s4d, bi-mamba and hydra read both ways.")
    ] = "bi-s4d",
    out: Annotated[
        Path | None, typer.Option(help="The folder to write, which must be new. [default: NAME-filled]")
    ] = None,
    budget: Annotated[str, typer.Option(help="Of training: 60s, 2m, 500steps.")] = "60s",
    window: Annotated[int, typer.Option(min=2, help="Steps that are read together.")] = 96,
    hide: Annotated[
        str, typer.Option(help="What training hides: points, spans, variates (whole ones), or mixed.")
    ] = "mixed",
    span: Annotated[
        int | None, typer.Option(min=1, help="Mean steps of a hidden stretch. [default: as the holes]")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="A column to fill in; again for more. [default: all]")
    ] = None,
    gaps: Annotated[str, typer.Option(help="refuse rows that are absent, or fill them in too.")] = "refuse",
    irregular: Annotated[bool, typer.Option("--irregular", help="Steps between rows differ.")] = False,
    width: Annotated[int, typer.Option(min=1, help="Channels of the model.")] = 64,
    depth: Annotated[int, typer.Option(min=1, help="Layers.")] = 2,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Fill in the empty cells of a table by a model that learns to find cells hidden from it.

    Writes a folder: filled.csv, the table without holes; holes.csv, each cell that was filled, with its
    quantiles; score.json, errors on cells with known values that were held back, beside linear interpolation,
    the last value carried forward and the mean; filled.png; and run, the trained model.
    """
    from hippodrome.estimators import Imputer, load
    from hippodrome.train.checkpoint import write_folder

    frame = frame_of(source)
    folder = results_folder(out, source, "filled")
    if run is not None:
        refuse_beside_run("out", "column", "gaps", "irregular", "device", "json")
        imputer: Any = load(run, present(device))
        if not isinstance(imputer, Imputer):
            raise ValueError(f"{run} holds a model for {imputer.run_.spec['kind']}, which fills in no table")
        imputer.set_params(targets=column, gaps=gaps, irregular=irregular)
        _check(source, imputer)
    else:
        imputer = Imputer(
            model, window, hide, span=span, targets=column, gaps=gaps, irregular=irregular, budget=budget,
            width=width, depth=depth, seed=seed, device=present(device),
        )  # fmt: skip
        _check(source, imputer)
        imputer.fit(frame)
    found, holes, score = imputer.transform(frame), imputer.holes(frame), imputer.score(frame)
    picture = imputer.chart(frame, f"{source.name}: filled in by {imputer.model}").png

    def fill(place: Path) -> None:
        found.to_csv(place / "filled.csv", index=False)
        holes.to_csv(place / "holes.csv", index=False)
        (place / "score.json").write_text(plain_json.dumps(score, indent=2) + "\n", encoding="utf-8")
        (place / "filled.png").write_bytes(picture)
        if run is None:
            imputer.save(place / "run")

    write_folder(folder, fill)
    rows = [[name, f"{one['mse']:.4f}", f"{one['mae']:.4f}"] for name, one in score.items()]
    told(
        {"out": str(folder), "filled": len(holes), "score": score},
        f"errors on hidden cells of {source.name}, scaled",
        ["filled by", "mse", "mae"],
        rows,
        json,
    )
    typer.echo(f"{len(holes)} cells filled in: {folder / 'filled.csv'}", err=True)


def _check(source: Path, imputer: "Imputer") -> None:
    """Tell of a fault in the file by row and column, and of a table with nothing to fill in, before training.

    Raises:
        ValueError: either.
    """
    from hippodrome.data.imputation import read_grids

    grids = read_grids(source, targets=imputer.targets, gaps=imputer.gaps, irregular=imputer.irregular)
    if not any(bool((one.values != one.values).any()) for one in grids.series):
        raise ValueError(
            f"{source}: every cell of {', '.join(grids.names)} is there, so nothing is to be filled in. "
            f"Leave cells empty that are missing"
        )
