"""`hippodrome train`: one model on one source, into a run folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hippodrome.cli._data import Horizon, Kind, LookBack, Source, open_task
from hippodrome.cli._options import Device, Json, command_line
from hippodrome.cli._output import as_json, count, table
from hippodrome.cli._settings import Assignments, File, Settings

if TYPE_CHECKING:
    from torch import Tensor

    from hippodrome.data.base import Task

PANEL = "Race and train"


def command(
    source: Source,
    model: Annotated[
        str | None, typer.Option(help="A mixer, a pattern, or a recipe. [default: mamba2]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. [default: run-NAME]")] = None,
    budget: Annotated[str | None, typer.Option(help="60s, 2m, 500steps, 1Mtok. [default: 60s]")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Channels of the model.")] = None,
    parameters: Annotated[
        int | None, typer.Option(min=1, help="Instead of a width: match this number.")
    ] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Layers.")] = None,
    lr: Annotated[float | None, typer.Option(min=0, help="Peak learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows of a step.")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(help="A run folder whose backbone and weights to begin with, for another task perhaps."),
    ] = None,
    kind: Kind = None,
    look_back: LookBack = None,
    horizon: Horizon = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the run in the folder first.")
    ] = False,
    file: File = None,
    assignments: Assignments = None,
    json: Json = False,
) -> None:
    """Train one model on your data. A run that was stopped goes on with --resume.

    With --start-from the model has the backbone of a trained one and begins with its weights: a classifier or
    an encoder with those of a masked language model, say.

    Options beyond these: -s data.NAME=VALUE for the reader, -s training.NAME=VALUE for the trainer, and
    -s model.NAME=VALUE for the stack (options.KIND.NAME for a mixer's constructor, mlp, norm, dropout,
    recompute).
    """
    from hippodrome import runs
    from hippodrome.config import suggest
    from hippodrome.train.settings import TrainSettings

    settings = Settings(file, assignments)
    out = settings.take("out", out)
    chosen = str(settings.take("model_name", model, "mamba2"))
    data, training, stack = (settings.section(name) for name in ("data", "training", "model"))
    settings.finish()
    task = open_task(source, data, kind=kind, look_back=look_back, horizon=horizon)
    begun: dict[str, Tensor] | None = None
    if start_from is None:
        defaults, spec = _spec(task, chosen, width, parameters, depth, stack)
    else:
        beside: dict[str, Any] = {"--model": model, "--width": width, "--parameters": parameters}
        beside |= {"--depth": depth, "-s model": stack}
        defaults = {}
        spec, begun = _begin(start_from, task, [name for name, value in beside.items() if value])
        chosen = str(start_from)
    flags = {
        "budget": budget,
        "lr": lr,
        "batch_size": batch_size,
        "seed": seed,
        "device": device if device != "auto" else None,
    }
    given = {**defaults, **training, **{k: v for k, v in flags.items() if v is not None}}
    given.setdefault("progress", not json)
    for name in given:
        if name not in TrainSettings.model_fields:
            raise ValueError(f"training has no option {name!r}{suggest(name, TrainSettings.model_fields)}")
    train = TrainSettings.model_validate(given)
    result = runs.train(
        spec,
        task,
        train,
        out or f"run-{task.name}",
        resume=resume,
        overwrite=overwrite,
        command=command_line(),
        start_from=begun,
    )
    if json:
        as_json({**result._asdict(), "folder": str(result.folder)})
    else:
        facts = {
            "parameters": count(result.parameters),
            "steps": result.steps,
            "tokens": count(result.tokens),
        }
        shown = {
            **facts,
            "seconds": f"{result.seconds:.1f}",
            **{k: f"{v:.5g}" for k, v in result.valid.items()},
        }
        table(f"{chosen} on {task.name}", ["what", "value"], list(shown.items()))
        typer.echo(f"run folder: {result.folder}")
    if result.status == "diverged":
        typer.echo(f"Error: {result.message}", err=True)
        raise typer.Exit(1)


def _begin(folder: Path, task: "Task", beside: list[str]) -> tuple[dict[str, Any], dict[str, "Tensor"]]:
    """The spec of a model with the backbone of a trained one, and what it begins with of that."""
    from hippodrome import config, runs
    from hippodrome.train import weights

    if beside:
        raise ValueError(f"--start-from brings the model's own backbone: leave {', '.join(beside)} out")
    run = runs.load(folder)
    both = [one for one in (run.tokenizer, task.tokenizer) if one is not None]
    if len({one.to_str() for one in both}) > 1:
        raise ValueError(
            f"{folder} reads other tokens than this data makes: give -s data.tokenizer="
            f"{folder / 'tokenizer.json'}"
        )
    spec = {"backbone": run.spec["backbone"]}
    with_facts = config.validate({"kind": task.kind, **task.facts, **spec})
    return spec, weights.carried(run.model, config.build(with_facts))


def _spec(
    task: "Task",
    model: str,
    width: int | None,
    parameters: int | None,
    depth: int | None,
    options: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The trainer's defaults that a recipe brings, and the spec of the model."""
    from hippodrome import config
    from hippodrome.cli import _recipes as recipes
    from hippodrome.race.plan import training_values
    from hippodrome.race.settings import DEPTH, parameters_for

    own, inner = config.own_options(task.kind, options.get("options"))
    if model in recipes.names():
        recipe = recipes.find(model)
        if inner or options.keys() - {"options"} or (own and task.kind != "vision"):
            raise ValueError(
                f"the recipe {model!r} brings its own model; drop -s model..., or name a pattern"
                + (" (of pictures -s model.options.vision.patch=N fits)" if task.kind == "vision" else "")
            )
        if task.kind == "vision":
            own = {**{k: v for k, v in recipe.model.vision.items() if k not in task.facts}, **own}
            sizes = config.grid(task.kind, {**task.facts, **own}, task.details)
            return dict(recipe.training), {"backbone": recipe.model.stack(width, depth, sizes), **own}
        head = {} if recipe.model.tie or task.kind != "language" else {"tie": False}
        head |= recipe.model.language if task.kind == "language" else {}
        return dict(recipe.training), {"backbone": recipe.model.stack(width, depth), **head}
    depth = depth or len(config.pattern_layers(model, DEPTH[task.kind]))

    facts = {**task.facts, **own}
    sizes = config.grid(task.kind, facts, task.details)
    options = {**options, "options": config.with_sizes(model, inner, sizes)}

    def spec(width: int) -> dict[str, Any]:
        return {
            "kind": task.kind,
            **facts,
            "backbone": config.stack_spec(model, width, depth, **options),
        }

    if width is None:
        wanted = parameters or parameters_for(task.kind, training_values(task))
        width = config.match_width(spec, wanted, config.width_step(task.kind, sizes))
    return {}, spec(width)
