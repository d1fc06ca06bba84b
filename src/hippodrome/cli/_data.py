"""Options about data that several verbs share, and the task they name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

if TYPE_CHECKING:
    from hippodrome.data.base import Task
    from hippodrome.runs import Run

Source = Annotated[
    str,
    typer.Argument(
        help="Text file or folder, .jsonl of conversations, CSV, Parquet, .ts (its _TEST beside it), .npz, "
        ".tsv of labelled text, folder of wav files, of texts by class, of pictures or of IDX files, FASTA "
        "or GenBank, or a built-in source (hippodrome list sources)."
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        help="language, masked_language, encoder, classification, regression, forecasting, video or vision, "
        "where there is a choice."
    ),
]
SHAPING = (
    *("order", "permute", "grey", "rate", "seconds", "quantization", "lag", "targets", "size"),
    *("eval_rate", "span", "corruption", "joint", "normalize"),
)
"""Options of readers that decide what a model sees; the others decide what it is trained or tested on."""
SIZED = ("classification", "regression", "imputation", "vision")
LookBack = Annotated[int | None, typer.Option(min=1, help="Steps of the past a forecast reads.")]
Horizon = Annotated[int | None, typer.Option(min=1, help="Steps to forecast.")]


def open_task(source: str, options: dict[str, Any], **flags: Any) -> "Task":
    """The task of a source; ``options`` come from the section ``data``, over which flags win."""
    from hippodrome.config import suggest
    from hippodrome.data import open_source
    from hippodrome.data.base import Kind

    given = {**options, **{name: value for name, value in flags.items() if value is not None}}
    known = [name for name in open_source.__annotations__ if name not in ("source", "return")]
    for name in given:
        if name not in known:
            raise ValueError(f"data has no option {name!r}{suggest(name, known)}")
    kinds = [kind for kind in get_args(Kind) if kind != "pretraining"]
    if "kind" in given and given["kind"] not in kinds:
        raise ValueError(f"there is no kind {given['kind']!r} of task{suggest(given['kind'], kinds)}")
    return open_source(source, **given)


def task_of(run: "Run", source: str | None, options: dict[str, Any]) -> "Task":
    """A task that fits a trained model: its tokenizer, look-back, horizon; its own source if none is named.

    The run's own source is read with the options of the training; another one with those that shape what
    the model reads, as far as its reader knows them. Raises ValueError where the source is unknown or gone,
    or its classes or channels are not the model's.
    """
    from hippodrome.data import BUILT_IN, options_of

    details = run.details
    recorded: dict[str, Any] = dict(details.get("options") or {})
    if source is not None:
        known = options_of(source, _asked(details["kind"], source))
        recorded = {k: v for k, v in recorded.items() if k in SHAPING and k in known}
        if run.tokenizer is not None and "tokenizer" in known:
            recorded["tokenizer"] = str(run.folder / "tokenizer.json")
    given: dict[str, Any] = recorded
    if details["kind"] in ("language", "masked_language", "encoder") and run.tokenizer is not None:
        given["length"] = details.get("window")
        if "letters" not in details:  # whose alphabet is the reader's own
            given["tokenizer"] = str(run.folder / "tokenizer.json")
    if details["kind"] == "imputation":
        given["length"] = details["window"]
    if details["kind"] == "forecasting":
        given |= {"look_back": run.spec["look_back"], "horizon": run.spec["horizon"]}
    if source is None:
        source = str(details["name"] if details["name"] in BUILT_IN else details.get("source", ""))
        if not source or (source not in BUILT_IN and not Path(source).exists()):
            raise ValueError(f"the data of this run ({source or 'unknown'}) is not here; name a source")
    given["kind"] = _asked(details["kind"], source)
    task = open_task(source, {**{k: v for k, v in given.items() if v is not None}, **options})
    if task.kind != details["kind"]:
        raise ValueError(f"{source} makes a {task.kind} task; the model is for {details['kind']}")
    if details["kind"] == "masked_language" and task.facts["vocab_size"] != run.spec["vocab_size"]:
        raise ValueError(
            f"{source} has {task.facts['vocab_size']} token ids; the model knows {run.spec['vocab_size']}"
        )
    for fact in ("size", "colours"):
        if details["kind"] in ("video", "vision") and run.spec.get(fact) != task.facts.get(fact):
            raise ValueError(
                f"{source} has frames of {fact} {task.facts[fact]}; the model was built for {run.spec[fact]}"
            )
    for fact in ("channels", "targets"):
        ours, theirs = run.spec.get(fact), task.facts.get(fact)
        if ours is not None and theirs is not None and theirs != ours and details["kind"] in SIZED:
            raise ValueError(f"{source} has {fact}={theirs}; the model was built for {ours}")
    ours, theirs = run.spec.get("vocab_size"), task.facts.get("vocab_size")
    if ours is not None and theirs is not None and theirs > ours:
        raise ValueError(f"{source} has {theirs} tokens; the model knows {ours}")
    classes = task.facts.get("classes")
    if classes is not None and list(classes) != list(run.spec["classes"]):
        raise ValueError(f"{source} has the classes {classes}; the model knows {run.spec['classes']}")
    return task


def _asked(kind: str, source: str) -> Any:
    """The kind of task to ask of a source, where its path alone leaves a choice; None elsewhere."""
    from hippodrome.data import BUILT_IN

    path = Path(source)
    by_class = kind == "classification" and (path.is_dir() or path.suffix.lower() == ".tsv")
    if kind in ("masked_language", "encoder"):
        return kind
    chosen = kind in ("language", "video", "vision", "imputation") or by_class
    return kind if source not in BUILT_IN and chosen else None
