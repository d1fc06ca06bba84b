"""`hippodrome race`: models side by side on one source, under one budget, with a report at the end."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hippodrome.cli._data import Horizon, Kind, LookBack, Source, open_task
from hippodrome.cli._options import Device, Json, command_line, numbers
from hippodrome.cli._output import as_json, count, table
from hippodrome.cli._settings import Assignments, File, Settings

if TYPE_CHECKING:
    from hippodrome.race.result import RaceResult

PANEL = "Race and train"


def command(
    source: Source,
    models: Annotated[
        str | None,
        typer.Option(
            help="Mixers or patterns with commas: mamba,s4d,mamba2x3+attention. GRU and attention always run."
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="For each: 60s or 2m of training, 500steps, 1Mtok. [default: 60s]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder. [default: race-NAME]")] = None,
    parameters: Annotated[int | None, typer.Option(min=1, help="Widths are matched to this number.")] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Layers.")] = None,
    lr: Annotated[
        str | None, typer.Option(help="One learning rate, or several to search: 1e-3,3e-3.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many; from two on there are intervals.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows of a step.")] = None,
    pretrain: Annotated[
        str | None,
        typer.Option(
            metavar="masked|causal",
            help="Also pretrain each on the training inputs: fill in hidden steps, or foretell the next.",
        ),
    ] = None,
    pretrain_budget: Annotated[
        str | None, typer.Option(help="Of each pretraining, in the unit of --budget. [default: as --budget]")
    ] = None,
    mask_rate: Annotated[
        float | None, typer.Option(help="Share of the steps hidden in pretraining. [default: by the data]")
    ] = None,
    kind: Kind = None,
    look_back: LookBack = None,
    horizon: Horizon = None,
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of PyTorch on the CPU.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Tell time and memory, and train nothing.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on with a race that was stopped.")] = True,
    file: File = None,
    assignments: Assignments = None,
    json: Json = False,
) -> None:
    """Race models on your data under one budget; the report says which to take, and the winner is kept.

    With --pretrain every model runs from scratch and pretrained; whoever starts from scratch gets both
    budgets together (-s scratch_budget=same: only --budget).

    Options beyond these: -s data.NAME=VALUE for the reader, -s options.KIND.NAME=VALUE for a mixer, -s
    NAME=VALUE for the race (dropout, precision, validations, baselines, lengths, mask_span, ...).
    """
    import hippodrome.race.run as work
    from hippodrome.race.settings import RaceSettings

    settings = Settings(file, assignments)
    out = settings.take("out", out)
    threads = settings.take("threads", threads)
    data = settings.section("data")
    flags = {
        "models": models,
        "budget": budget,
        "parameters": parameters,
        "depth": depth,
        "learning_rates": numbers(lr, "--lr") if lr else None,
        "seeds": seeds,
        "batch_size": batch_size,
        "device": device if device != "auto" else None,
        "pretrain": pretrain,
        "pretrain_budget": pretrain_budget,
        "mask_rate": mask_rate,
    }
    given = {name: settings.take(name, flags.get(name)) for name in RaceSettings.model_fields}
    settings.finish()
    chosen = RaceSettings.model_validate({k: v for k, v in given.items() if v is not None})
    _no_recipes(chosen.models or ())
    task = open_task(source, data, kind=kind, look_back=look_back, horizon=horizon)
    if plan:
        _tell_plan(work.plan(task, chosen), json)
        return
    result = work.race(
        task,
        settings=chosen,
        folder=out,
        threads=threads,
        resume=resume,
        live=not json,  # a table on a terminal, plain lines elsewhere
        command=command_line(),
    )
    if json:
        as_json(result.model_dump(mode="json"))
    else:
        _tell(result)
    if result.winner is None:
        raise ValueError("no model finished; the table above says why")


def _no_recipes(models: tuple[str, ...]) -> None:
    from hippodrome.config import published as recipes
    from hippodrome.estimators import pattern as shortest

    known = recipes.names()
    for name in models:
        if name in known:
            layers = recipes.find(name).model.pattern
            if layers is None:
                raise ValueError(
                    f"a race matches widths, and {name!r} has none. Train it: hippodrome train SOURCE "
                    f"--model {name}"
                )
            pattern = layers if isinstance(layers, str) else shortest(layers)
            raise ValueError(
                f"a race matches widths, and the recipe {name!r} brings its own. Race its pattern, "
                f"{pattern!r}, or train it: hippodrome train SOURCE --model {name}"
            )


def _tell_plan(plan: Any, json: bool) -> None:
    if json:
        as_json(plan.model_dump(mode="json"))
        return
    rows = [[e.name, e.width, e.depth, count(e.parameters)] for e in plan.entries]
    table(f"the race on {plan.task}", ["model", "width", "layers", "parameters"], rows)
    typer.echo(str(plan.outlook))


def _tell(result: "RaceResult") -> None:
    rows: list[list[Any]] = []
    for place, s in enumerate(result.standings, 1):
        if s.status != "finished" or s.valid is None:
            rows.append(["-", s.name, s.status, s.note, "", "", ""])
            continue
        test = "" if s.test is None else f"{s.test.mean:.4g}"
        speed = count(s.tokens_per_second or 0)
        step = "" if s.step_seconds is None else f"{s.step_seconds * 1e3:.2g} ms"
        rows.append([place, s.name, f"{s.valid.mean:.4g}", test, count(s.parameters), speed, step])
    metric = result.metric
    columns = ["", "model", f"{metric}, valid", f"{metric}, test", "parameters", "tokens/s", "one token"]
    table(f"{result.task}: {result.training} each", columns, rows)
    for name, values in result.naive.items():
        told = [metric] if metric in values else list(values)
        typer.echo(f"{name}: {', '.join(f'{one} {values[one]:.4g}' for one in told)} on test")
    typer.echo()
    for sentence in result.verdict:
        typer.echo(sentence)
    typer.echo(f"\nreport: {result.report}\nwinner: {result.winner_folder}")
