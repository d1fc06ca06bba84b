"""`hippodrome train`: one model on one source, into a run folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hippodrome.cli._data import Horizon, Kind, LookBack, Source, open_task
from hippodrome.cli._language import with_language
from hippodrome.cli._options import Device, Json, command_line
from hippodrome.cli._output import as_json, count, table
from hippodrome.cli._settings import Assignments, File, Settings

if TYPE_CHECKING:
    from torch import Tensor

    from hippodrome.data.base import Task
    from hippodrome.models.base import Model
    from hippodrome.runs import Run

PANEL = "Race and train"
_TOLD = ("bytes_per_token", "whole_answers")


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
        typer.Option(help="A run or checkpoint whose weights to begin with, for another task perhaps."),
    ] = None,
    language: Annotated[
        Path | None,
        typer.Option(help="A run or checkpoint of a language model that reads for the recipe smetimes."),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(min=1, metavar="RANK", help="Train corrections of this rank, and no other weights."),
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
    an encoder with those of a masked language model, say. A language model goes on as it is, on text or on
    conversations in JSON lines, with its own tokenizer and chat template; --lora trains corrections of low
    rank alone, which are merged at the end (with the embedding, where the model learns a token for the end of
    a turn that it did not know, and with the layers that another task adds).

    With --language the recipe smetimes forecasts through a trained language model, which stays as it is
    unless -s model.options.forecasting.frozen=false.

    Options beyond these: -s data.NAME=VALUE for the reader, -s training.NAME=VALUE for the trainer, and
    -s model.NAME=VALUE for the stack (options.KIND.NAME for a mixer's constructor, mlp, norm, dropout,
    recompute); -s lora.alpha=NUMBER, -s lora.on=NAME,NAME and -s lora.also=NAME for
    the corrections.
    """
    from hippodrome import runs
    from hippodrome.config import suggest
    from hippodrome.train.settings import TrainSettings

    settings = Settings(file, assignments)
    out = settings.take("out", out)
    chosen = str(settings.take("model_name", model, "mamba2"))
    data, training, stack = (settings.section(name) for name in ("data", "training", "model"))
    low_rank = settings.section("lora") | ({} if lora is None else {"rank": lora})
    settings.finish()
    if low_rank and start_from is None:
        raise ValueError("--lora corrects a trained model: name it with --start-from, or leave --lora out")
    if start_from is not None:
        if out is not None and start_from.resolve() == Path(out).resolve():
            raise ValueError(f"{out} holds what to start from: train into another folder, with --out")
        data |= _tokens(start_from, source, kind or data.get("kind"), data)
    task = open_task(source, data, kind=kind, look_back=look_back, horizon=horizon)
    begin: _Begin | None = None
    beside: dict[str, Any] = {}
    if start_from is None:
        defaults, spec = _spec(task, chosen, width, parameters, depth, stack)
        if language is not None:
            beside = {"--width": width, "--parameters": parameters, "--depth": depth}
            named = [name for name, value in beside.items() if value]
            begin = _Begin(*with_language(language, spec, named), False, (), None)
            spec = begin.spec
    else:
        beside = {"--model": model, "--width": width, "--parameters": parameters}
        beside |= {"--depth": depth, "-s model": stack, "--language": language}
        begin = _begin(start_from, task, data, [name for name, value in beside.items() if value])
        spec, chosen = begin.spec, str(start_from)
        # What was learned is soon lost to steps of the size that learned it.
        defaults = {"lr": 1e-3 if low_rank else 3e-4} if begin.goes_on else {}
    if low_rank:
        defaults = {**defaults, "lora": {**({} if begin is None else {"also": begin.unseen}), **low_rank}}
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
        start_from=None if begin is None else begin.tensors,
    )
    _carry(result.folder, task, data, begin)
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
        if "template" in task.details:
            shown["chat template"] = task.details["template"]
        table(f"{chosen} on {task.name}", ["what", "value"], list(shown.items()))
        typer.echo(f"run folder: {result.folder}")
    if result.status == "diverged":
        typer.echo(f"Error: {result.message}", err=True)
        raise typer.Exit(1)


class _Begin(NamedTuple):
    """What a model begins with: its spec, and tensors by name; whether it is the trained model which goes on,
    its head and all; what in it has rows for tokens that it was never trained on; and the layout of another
    program that it came in."""

    spec: dict[str, Any]
    tensors: dict[str, "Tensor"]
    goes_on: bool
    unseen: tuple[str, ...]
    origin: dict[str, Any] | None


def _tokens(folder: Path, source: str, kind: Any, data: dict[str, Any]) -> dict[str, str]:
    """The option of the reader that makes it read the tokens of a trained model, where it has one."""
    from hippodrome.data import options_of

    fits = (folder / "tokenizer.json").is_file() and "tokenizer" in options_of(source, kind)
    return {"tokenizer": str(folder)} if fits and "tokenizer" not in data else {}


def _begin(folder: Path, task: "Task", data: dict[str, Any], beside: list[str]) -> _Begin:
    """The spec of a model with the backbone of a trained one, and what it begins with of that."""
    import torch

    from hippodrome import checkpoints, config
    from hippodrome.train import weights

    if beside:
        raise ValueError(f"--start-from brings the model's own backbone: leave {', '.join(beside)} out")
    run = checkpoints.open_model(folder)
    if "quantized" in run.details:
        raise ValueError(
            f"{folder} has its weights in int8, which are trained no further: start from the run that it was "
            "made of"
        )
    if any(p.dtype in (torch.bfloat16, torch.float16) for p in run.model.parameters()):
        run.model.float()  # small steps would be lost in the rounding of such weights
    both = [one for one in (run.tokenizer, task.tokenizer) if one is not None]
    if len({one.to_str() for one in both}) > 1:
        raise ValueError(
            f"{folder} reads other tokens than this data makes: leave data.tokenizer out, or give "
            f"-s data.tokenizer={folder}"
        )
    alike = task.kind == "language" == run.spec["kind"]
    if alike and run.tokenizer is None and task.tokenizer is not None and "tokenizer" not in data:
        raise ValueError(
            f"{folder} has no tokenizer, so what its tokens mean is not known: name the folder of its "
            "tokenizer with -s data.tokenizer=FOLDER"
        )
    size, known = task.facts.get("vocab_size", 0), run.spec.get("vocab_size", 0)
    if alike and (size == known or (size < known and task.tokenizer is not None)):
        # What the data says of its tokens changes no output.
        spec = {**run.spec, **{k: v for k, v in task.facts.items() if k in _TOLD}}
        sizes = spec.get("bytes_per_token")
        if isinstance(sizes, list):
            # Rows of the table beyond the tokenizer's, which no text has.
            spec["bytes_per_token"] = sizes + [1] * (known - len(sizes))
        tensors = {name: tensor.detach() for name, tensor in run.model.state_dict().items()}
        # An end that comes with the plain template is new to a model that knew none.
        new = task.words is not None and not set(task.words.ends) <= set(run.ends)
        tables = ("embedding",) if run.spec.get("tie", True) else ("embedding", "head")
        return _Begin(spec, tensors, True, tables if new else (), _origin(run))
    spec = {"backbone": run.spec["backbone"]}
    fresh = config.build(config.validate({"kind": task.kind, **task.facts, **spec}))
    tensors = weights.carried(run.model, fresh)
    return _Begin(spec, tensors, False, _drawn(fresh, tensors, run.model), None)


def _drawn(model: "Model", tensors: dict[str, "Tensor"], source: "Model") -> tuple[str, ...]:
    """The modules of a model with parameters that begin as they are drawn, in part at least."""
    there = source.state_dict()
    new = [
        name
        for name, value in model.named_parameters()
        if name not in tensors or name not in there or there[name].shape != value.shape
    ]
    return tuple(dict.fromkeys(owner for name in new if (owner := name.rpartition(".")[0])))


def _carry(folder: Path, task: "Task", data: dict[str, Any], begin: _Begin | None) -> None:
    """Leaves in a run's folder how text is read, ended and laid out, and what layout the weights came in."""
    from hippodrome import checkpoints
    from hippodrome.text.folder import carry

    if task.kind != "language" or not folder.is_dir():
        return
    place = Path(str(data.get("tokenizer", "bytes")))
    place = place.parent if place.name == "tokenizer.json" else place
    if task.words is not None:
        carry(task.words, place if (place / "tokenizer.json").is_file() else None, folder)
    if begin is not None and begin.origin is not None:
        checkpoints.origin.write(folder, begin.origin)


def _origin(run: "Run") -> dict[str, Any] | None:
    """The layout that a model came in, where it was another program's."""
    from hippodrome import checkpoints

    return run.details.get("origin") or checkpoints.origin.read(run.folder)


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
    from hippodrome.config import published as recipes
    from hippodrome.race.plan import training_values
    from hippodrome.race.settings import DEPTH, parameters_for

    own, inner = config.own_options(task.kind, options.get("options"))
    if model in recipes.names():
        recipe = recipes.find(model)
        open_to = ("vision", "forecasting")
        if inner or options.keys() - {"options"} or (own and task.kind not in open_to):
            raise ValueError(
                f"the recipe {model!r} brings its own model; drop -s model..., or name a pattern"
                + (f" (-s model.options.{task.kind}.NAME=VALUE fits)" if task.kind in open_to else "")
            )
        made = recipes.spec_of(recipe, task.kind, task.facts, task.details, width, depth, own)
        return dict(recipe.training), made
    depth = depth or len(config.pattern_layers(model, DEPTH[task.kind]))

    facts = {**task.facts, **own}
    sizes = config.grid(task.kind, facts, task.details)
    options = {
        **options,
        "options": config.with_sizes(model, inner, sizes, config.variates(task.kind, facts)),
    }

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
