"""`hippodrome quantize`: a model with its weights rounded to int8, and what that costs in nats."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hippodrome.cli._data import task_of
from hippodrome.cli._options import Json
from hippodrome.cli._output import as_json, size, table

PANEL = "Use a model"


def command(
    run: Annotated[Path, typer.Argument(help="A run folder, or the folder of a checkpoint.")],
    out: Annotated[Path, typer.Option(help="The run folder to write: new, or empty.")],
    on: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help='Data to evaluate on before and after; "own" for the run\'s own.'
        ),
    ] = None,
    part: Annotated[str, typer.Option(help="train, valid or test, of that data.")] = "test",
    keep: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Layers to leave in full, such as head or dt_proj."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of what is not rounded: float32 or bfloat16. [default: as it is stored]"),
    ] = None,
    json: Json = False,
) -> None:
    """Round a model's weights to int8, with one scale for each output, into a run folder of its own.

    Linear maps, experts and the table of the vocabulary are rounded; norms, convolutions, A and D stay, and
    activations, step sizes and states are computed as before. Every verb takes the folder it writes; training
    goes on from the model in full.
    """
    from hippodrome import checkpoints, runs
    from hippodrome.quantize.weight_only import KEEP, bytes_of, weight_only
    from hippodrome.text.folder import carry

    # Both before anything is computed, which may take long.
    if part not in ("train", "valid", "test"):
        raise ValueError(f"there is no part {part!r}: data has train, valid and test")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already and is not an empty folder. Name another")
    opened = checkpoints.open_model(run, dtype=dtype)
    names = [name for name in (keep or "").split(",") if name]
    task = None if on is None else task_of(opened, None if on == "own" else on, {})
    measured: list[dict[str, float]] = []

    def measure() -> None:
        if task is not None:
            measured.append(runs.evaluate(opened, task, part))  # type: ignore[arg-type]

    measure()
    before = bytes_of(opened.model)
    layers = weight_only(opened.model, keep=[*KEEP, *names])
    after = bytes_of(opened.model)
    measure()

    def fill(folder: Path) -> None:
        if opened.words is not None:
            carry(opened.words, run, folder)

    details = {k: v for k, v in opened.details.items() if k != "origin"} | {"quantized": "int8"}
    runs.save(opened._replace(details=details), out, fill)
    worst = max(layers, key=lambda layer: layer.error)
    facts: dict[str, Any] = {
        "layers": len(layers),
        "largest_error": {"layer": worst.name, "error": worst.error},
        "bytes": {"before": before, "after": after},
    }
    if json:
        told = (
            {"data": task.name, "part": part, "before": measured[0], "after": measured[1]} if task else None
        )
        as_json({"folder": str(out), **facts, "metrics": told, "rounded": layers})
        return
    rows = [["bytes", size(before), size(after)]]
    if task is not None:
        rows += [[name, f"{value:.6g}", f"{measured[1][name]:.6g}"] for name, value in measured[0].items()]
    title = f"{run} in int8" + ("" if task is None else f", on {task.name}, {part}")
    table(title, ["what", "before", "after"], rows)
    typer.echo(
        f"{len(layers)} layers rounded; the one with the largest error is {worst.name}, off by "
        f"{worst.error:.2%} of its weights"
    )
    typer.echo(f"run folder: {out}")
