"""`hippodrome evaluate`: the metrics of a trained model on a part of some data."""

from pathlib import Path
from typing import Annotated

import typer

from hippodrome.cli._data import task_of
from hippodrome.cli._options import Device, Json, present
from hippodrome.cli._output import as_json, table
from hippodrome.cli._settings import Assignments, File, Settings

PANEL = "Race and train"
PARTS = ("train", "valid", "test")


def command(
    run: Annotated[Path, typer.Argument(help="A run folder, or the folder of a checkpoint.")],
    source: Annotated[str | None, typer.Argument(help="Data; the run's own if left out.")] = None,
    part: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    rate: Annotated[
        float | None,
        typer.Option(help="Multiplies every time step: 2 for data with half as many samples a second."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    chunk: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens to read at once of long rows, through the state of the last."),
    ] = None,
    device: Device = "cpu",
    file: File = None,
    assignments: Assignments = None,
    json: Json = False,
) -> None:
    """Evaluate a run folder's model, on its own data or on other data of the same kind.

    The reader's options are those of the training; -s data.NAME=VALUE changes them. A model trained on
    recordings of 8 kHz is asked about 4 kHz, without training, by -s data.rate=4000 --rate 2. A language
    model trained on 256 tokens is asked about a million by -s data.length=1048576 --chunk 4096, in the memory
    that 4096 take.
    """
    from hippodrome import checkpoints, runs
    from hippodrome.config import suggest

    if part not in PARTS:
        raise ValueError(f"there is no part {part!r}{suggest(part, PARTS)}")
    settings = Settings(file, assignments)
    data = settings.section("data")
    settings.finish()
    opened = checkpoints.open_model(run, present(device))
    task = task_of(opened, source, data)
    found = runs.evaluate(opened, task, part, batch_size=batch_size, rate=rate, chunk=chunk)  # type: ignore[arg-type]
    told = rate is None or runs.accepts_rate(opened)
    if json:
        as_json(
            {
                "run": str(run),
                "task": task.name,
                "part": part,
                "rate": rate if told else None,
                "metrics": found,
            }
        )
        return
    rows = [[name, f"{value:.6g}"] for name, value in found.items()]
    table(f"{run} on {task.name}, {part}", ["metric", "value"], rows)
    if not told:
        typer.echo(
            f"--rate {rate:g} was left out: not every mixer of this model has continuous time, so it was "
            f"evaluated as it was trained."
        )
