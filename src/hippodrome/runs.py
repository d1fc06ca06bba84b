"""Run folders: train a spec on a task into one, load the model out of one, evaluate it.

A run folder holds ``config.json`` (format version, spec, task, settings, versions, command),
``model.safetensors`` (the weights that were best on validation), ``tokenizer.json`` for text,
``metrics.jsonl``, ``checkpoints/``, and ``result.json``, which is written last and so tells that the run came
to its end.
"""

import json
import math
import platform
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from hippodrome import config
from hippodrome.config.unfilled import Unfilled
from hippodrome.data.base import Task
from hippodrome.models.base import Model, accepts_dt
from hippodrome.train import low_rank, weights
from hippodrome.train.checkpoint import random_states, restore_random, write_atomically, write_folder
from hippodrome.train.fit import evaluate as evaluate_model
from hippodrome.train.fit import fit
from hippodrome.train.loop import OnEvent
from hippodrome.train.parallel import is_main
from hippodrome.train.settings import TrainSettings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from hippodrome.text.folder import Words
    from hippodrome.text.template import Template

FORMAT = 1
"""The version of the run folder. It rises when an older program could not read a newer folder."""

_TIMED = ("classification", "regression")
"""Kinds of task whose batches hold time steps."""

_OURS = (
    *("config.json", "model.safetensors", "tokenizer.json", "metrics.jsonl", "result.json", "report.html"),
    *("adapter.safetensors", "origin.json", "intervals.safetensors"),
)


class Result(NamedTuple):
    """What came of a run. ``seconds`` are of training alone; ``valid`` are the metrics at ``best_step``, the
    best validation, whose weights the folder holds."""

    folder: Path
    status: str
    message: str
    parameters: int
    steps: int
    tokens: int
    seconds: float
    valid: dict[str, float]
    best_step: int


class Run(NamedTuple):
    """A run folder, opened: the model ready for inference, and what is known about it.

    ``details`` are the task's: its kind and name, source, counts and so on. ``result`` is None where the run
    has not ended. ``words`` are how text is read, ended and laid out, None where tokens are no text.
    """

    model: Model
    spec: dict[str, Any]
    tokenizer: "Tokenizer | None"
    details: dict[str, Any]
    folder: Path
    settings: TrainSettings
    result: Result | None
    words: "Words | None" = None

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens any of which ends a text."""
        return () if self.words is None else self.words.ends

    @property
    def template(self) -> "Template | None":
        """How a conversation is laid out as text, where the model came with a way."""
        return None if self.words is None else self.words.template


def train(
    spec: Mapping[str, Any],
    task: Task,
    settings: TrainSettings,
    folder: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_event: OnEvent | None = None,
    command: str | None = None,
    start_from: Mapping[str, Tensor] | None = None,
) -> Result:
    """Builds the model of ``spec`` with the task's facts, trains it, and leaves a run folder.

    ``start_from`` holds tensors by their names in the model, of a pretrained backbone perhaps, that training
    begins with; what it does not name begins as it is drawn. A run that is resumed is given the same.

    ``spec`` may leave out ``kind`` and whatever the task's facts say. ``resume`` continues a run that was
    stopped or killed (and returns the result of one that ended); ``overwrite`` removes a run first. Raises
    ValueError where the folder holds a run and neither is said, where it holds anything else, where the run
    in it is of another spec or began with other tensors, and where ``start_from`` does not fit the model, by
    name; OSError where it can no longer be written.
    """
    folder = Path(folder)
    full = config.validate({"kind": task.kind, **task.facts, **spec})
    # Built first: what cannot be built leaves no folder.
    before = random_states(torch.device("cpu"))
    try:
        torch.manual_seed(settings.seed)
        model: Model = config.build(full)
        weights.start(model, start_from or {})
        if settings.lora is not None:
            low_rank.chosen(model, settings.lora)
    finally:
        restore_random(before, torch.device("cpu"))
    main = is_main(settings)
    if main:
        begun = weights.fingerprint(start_from or {})
        _claim(folder, full, begun, resume, overwrite)
    ended = read_result(folder) if resume else None
    if ended is not None and _spent(settings, ended):
        return ended
    if main:
        _write_head(folder, full, begun, task, settings, command)
    parameters = sum(p.numel() for p in model.parameters())
    fitted = fit(
        model, task.train, task.valid, task.collate, settings, folder, resume=resume, on_event=on_event
    )
    spent = (fitted.steps, fitted.tokens, fitted.seconds)
    result = Result(folder, fitted.status, fitted.message, parameters, *spent, fitted.best, fitted.best_step)
    if main:
        if fitted.weights:
            weights.write(folder / "model.safetensors", fitted.weights, weights.aliases(model))
        _write_json(folder / "result.json", {**result._asdict(), "folder": folder.name})
    return result


def load(path: str | Path, device: str = "cpu") -> Run:
    """Opens a run folder; the model is on ``device`` and in evaluation mode.

    Only JSON and safetensors are read, never code. Raises ValueError in a sentence where the folder is none,
    is of a newer format, or has no weights, and where the weights do not fit the model, by name.
    """
    folder = Path(path)
    head = read_config(folder)
    result = read_result(folder)
    file = folder / "model.safetensors"
    if not file.exists():
        why = "has not ended; resume it" if result is None else f"{result.status}: {result.message}"
        raise ValueError(f"there is no model in {folder}: the run {why}")
    with Unfilled():
        model: Model = config.build(head["spec"])
    weights.load(model, file, getattr(torch, head["dtype"]) if "dtype" in head else None)
    model.to(device_of(device)).eval()
    words = None
    if (folder / "tokenizer.json").exists():
        from hippodrome.text.folder import read

        words = read(folder, head["spec"].get("vocab_size"))
    settings = TrainSettings.model_validate(head["settings"])
    tokenizer = None if words is None else words.tokenizer
    return Run(model, head["spec"], tokenizer, head["task"], folder, settings, result, words)


def save(run: Run, folder: str | Path, fill: Callable[[Path], None] | None = None) -> Path:
    """Writes a model that is in memory as a run folder, which appears whole or not at all.

    ``fill`` writes what else belongs in it. Raises ValueError where the folder is there and not empty;
    OSError where it cannot be written.
    """
    folder = Path(folder)

    def write(place: Path) -> None:
        kind = str(next(run.model.parameters()).dtype).removeprefix("torch.")
        head = {**_head(run.spec, run.details, run.settings, None), "dtype": kind}
        _write_json(place / "config.json", head)
        weights.write(place / "model.safetensors", run.model.state_dict(), weights.aliases(run.model))
        if run.tokenizer is not None:
            _write_text(place / "tokenizer.json", run.tokenizer.to_str(pretty=True))
        if fill is not None:
            fill(place)

    write_folder(folder, write)
    return folder


def evaluate(
    run: Run,
    task: Task,
    split: Literal["train", "valid", "test"] = "test",
    *,
    batch_size: int | None = None,
    rate: float | None = None,
    chunk: int | None = None,
) -> dict[str, float]:
    """The metrics of a run's model on one part of a task, on the device where the model is.

    ``rate`` multiplies every time step, for data sampled at another rate than the model was trained at: 2
    where there are half as many samples. A model whose mixers have not all continuous time is evaluated as it
    is; ``accepts_rate`` tells which. ``chunk`` reads the rows of a language task so many tokens at a time,
    each with the state after the last: the model's memory does not grow with their length. Raises ValueError
    for a rate that is not above 0, and for kinds of task that have no time steps (a rate) or whose rows are
    read as a whole (a chunk).
    """
    device = next(run.model.parameters()).device
    dataset = {"train": task.train, "valid": task.valid, "test": task.test}[split]
    batches = task.collate if rate is None else partial(_at_rate, task.collate, _valid_rate(rate, task.kind))
    size = batch_size or run.settings.batch_size
    return evaluate_model(run.model, dataset, batches, size, device, chunk=chunk)


def accepts_rate(run: Run) -> bool:
    """Whether another size of the time steps reaches every mixer of the model."""
    return run.details["kind"] in _TIMED and accepts_dt(run.model.backbone)


def _valid_rate(rate: float, kind: str) -> float:
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(
            f"a rate multiplies time steps, so it is a finite number above 0; got {rate:g}. Give 2 where "
            f"there are half as many samples as in training."
        )
    if kind not in _TIMED:
        raise ValueError(
            f"a rate is for {' and '.join(_TIMED)}, whose batches have time steps; got a {kind} task. Leave "
            f"it out."
        )
    return rate


def _at_rate(collate: Callable[[list], Any], rate: float, items: list) -> Any:
    """A batch with its time steps, ones where there are none, times the rate."""
    batch = collate(items)
    dt = torch.ones(batch.inputs.shape[:2]) if batch.dt is None else batch.dt
    return batch._replace(dt=dt * rate)


def read_config(folder: Path) -> dict[str, Any]:
    """What ``config.json`` of a run folder says; raises ValueError in a sentence where it cannot be read."""
    path = folder / "config.json"
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if folder.is_file():
            raise ValueError(f"{folder} is not a run folder: it is a file") from None
        what = "there is no such folder" if not folder.exists() else "it has no config.json"
        raise ValueError(f"{folder} is not a run folder: {what}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    version = head.get("format") if isinstance(head, dict) else None
    if not isinstance(version, int):
        raise ValueError(
            f"{path} names no format version, so {folder} is no run folder. If it is another program's "
            f"checkpoint, hippodrome.open_model opens it and hippodrome convert makes a run of it"
        )
    if version > FORMAT:
        made = head.get("versions", {}).get("hippodrome", "a newer version")
        raise ValueError(
            f"{folder} has run format {version}, and this program reads up to {FORMAT}. It was made by "
            f"hippodrome {made}: install that or a later one"
        )
    return head


def read_result(folder: Path) -> Result | None:
    """What ``result.json`` of a run folder says; None where the run has not ended."""
    path = folder / "result.json"
    if not path.exists():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    return Result._make(folder if name == "folder" else values[name] for name in Result._fields)


def _claim(folder: Path, spec: dict[str, Any], begun: str, resume: bool, overwrite: bool) -> None:
    """Sees to it that the folder is free for this run, or is this run's."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} is not empty and is no run folder. Name another, or a new one")
    if overwrite and not resume:
        from hippodrome.text.folder import FILES

        for name in (*_OURS, *FILES):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return
    if not resume:
        ended = "finished" if (folder / "result.json").exists() else "unfinished"
        raise ValueError(f"{folder} holds a run that is {ended}. Resume it, overwrite it, or name another")
    head = read_config(folder)
    if head["spec"] != spec:
        raise ValueError(
            f"{folder} holds a run of another model ({_difference(head['spec'], spec)}). Name another "
            f"folder, or overwrite it"
        )
    if head.get("begun_with", "") != begun:
        raise ValueError(
            f"{folder} holds a run that began with other weights. Name another folder, or overwrite it"
        )


def _spent(settings: TrainSettings, result: Result) -> bool:
    """Whether a run that ended has nothing more to do: a larger budget makes it go on."""
    spent = settings.budget.fraction(result.steps, result.tokens, result.seconds)
    return result.status != "finished" or spent >= 1


def _difference(there: Any, here: Any, path: str = "") -> str:
    """The first place at which two specs differ."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in [*there, *(k for k in here if k not in there)]:
            if there.get(key) != here.get(key):
                return _difference(there.get(key), here.get(key), f"{path}.{key}".strip("."))
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for i, (a, b) in enumerate(zip(there, here, strict=True)):
            if a != b:
                return _difference(a, b, f"{path}.{i}".strip("."))
    return f"{path}: there {str(there)[:40]}, here {str(here)[:40]}"


def _write_head(
    folder: Path, spec: dict[str, Any], begun: str, task: Task, settings: TrainSettings, command: str | None
) -> None:
    """Makes the folder and writes what is known before training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"the run folder {folder} cannot be made ({error.strerror or error}). Name another"
        ) from None
    (folder / "result.json").unlink(missing_ok=True)
    details = {"kind": task.kind, "name": task.name, **task.details}
    head = _head(spec, details, settings, command) | ({"begun_with": begun} if begun else {})
    _write_json(folder / "config.json", head)
    if task.tokenizer is not None:
        _write_text(folder / "tokenizer.json", task.tokenizer.to_str(pretty=True))


def _head(
    spec: dict[str, Any], details: dict[str, Any], settings: TrainSettings, command: str | None
) -> dict[str, Any]:
    """What ``config.json`` says of any run."""
    packages = ("hippodrome", "torch", "numba", "numpy", "lightning")
    return {
        "format": FORMAT,
        "spec": spec,
        "task": details,
        "settings": settings.model_dump(mode="json"),
        "versions": {"python": platform.python_version(), **{p: metadata.version(p) for p in packages}},
        "command": command or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _write_json(path: Path, value: Any) -> None:
    _write_text(path, json.dumps(value, indent=2, default=_plain, ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    """What JSON does not know: numbers and arrays as numbers and lists, the rest as text."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def _write_text(path: Path, text: str) -> None:
    try:
        write_atomically(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise weights.cannot_write(path, error) from None


def device_of(name: str) -> torch.device:
    """The device of a name; ``auto`` is the accelerator where there is one."""
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    return torch.device(name)
