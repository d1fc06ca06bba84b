"""``race``: plan, train all under one budget, measure, choose on validation, look at test once, report."""

import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hippodrome import runs
from hippodrome.analyze.timing import faster_from
from hippodrome.config import find
from hippodrome.data import open_source
from hippodrome.data.base import Task
from hippodrome.models.base import Objective
from hippodrome.race import exhibits, machine, report
from hippodrome.race.files import copy_folder, write_text
from hippodrome.race.live import LiveTable
from hippodrome.race.measure import as_scaling, measure
from hippodrome.race.plan import Entry, RacePlan, make_plan
from hippodrome.race.pretraining import reads_both_ways, told
from hippodrome.race.result import Estimate, Exhibits, Pretext, RaceResult, Standing, Trial, rank
from hippodrome.race.settings import RaceSettings
from hippodrome.race.trials import OnEvent, best_rate, look_at_test, read_plan, train_entry
from hippodrome.race.verdict import verdict


def race(
    source: str | Path | Task,
    models: str | Sequence[str] | None = None,
    *,
    budget: str = "60s",
    parameters: int | None = None,
    depth: int | None = None,
    learning_rates: float | Sequence[float] | None = None,
    seeds: int | Sequence[int] = 1,
    batch_size: int | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    resume: bool = True,
    live: bool = True,
    on_event: OnEvent | None = None,
    command: str | None = None,
    pretrain: str | None = None,
    settings: RaceSettings | None = None,
) -> RaceResult:
    """Train models side by side on one source and report which to take.

    Args:
        source: a path or built-in name for ``hippodrome.data.open_source``, or a task it made.
        models: kinds of mixers or patterns such as "mamba2x3+attention", as a list or joined by commas. The
            baselines ("gru" and "attention"; of videos "conv_lstm") always run too. None takes a choice that
            fits the kind of task.
        budget: for each run: "60s" or "2m" of training (compilation and validation apart), "500steps",
            "1Mtok".
        parameters: the number of parameters that every width is matched to; None goes by the size of the
            data.
        depth: layers; a longer pattern takes its own length.
        learning_rates: one, or several to search among with the first seed; None takes a default for the
            task.
        seeds: how many, or which. With two or more the report gives intervals.
        batch_size: rows of a step.
        folder: where everything goes; None takes ``race-NAME`` here. A race stopped before its end goes on
            where it was when it is started again with the same plan.
        device: auto, cpu, cuda, cuda:1 or mps.
        threads: of PyTorch on the CPU while the race runs; None leaves them.
        resume: whether a folder that holds this race already is continued; if not, it is refused.
        live: a table on standard error that follows the race; plain lines where that is no terminal.
        on_event: called with a dict for every step shown, validation, start and end of a run.
        command: what the report calls the command that made it.
        pretrain: "masked" or "causal" runs every contender from scratch and pretrained on the training inputs
            alone, for as long as ``budget``; whoever starts from scratch gets twice that.
        settings: all of this and more at once, in place of the keywords from ``models`` to ``batch_size``
            and of ``pretrain``.

    Returns:
        The result, which also lies in the folder as ``result.json``; ``report.html`` and the run folder
        ``winner/`` lie beside it.

    Raises:
        ValueError: a source, model or option that cannot be; a folder that holds another race; not enough
        memory. OSError: the folder can no longer be written.
    """
    task = source if isinstance(source, Task) else open_source(source)
    chosen = settings or RaceSettings.model_validate(
        {
            "models": models,
            "budget": budget,
            "parameters": parameters,
            "depth": depth,
            "learning_rates": learning_rates,
            "seeds": seeds,
            "batch_size": batch_size,
            "device": device,
            "pretrain": pretrain,
        }
    )
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    place = Path(folder or f"race-{task.name}")
    chosen_device = machine.device_for(chosen.device)
    try:
        with torch.random.fork_rng(_cards(chosen_device)):
            return _race(task, chosen, place, resume, live, on_event, command)
    finally:
        torch.set_num_threads(before)


def _cards(device: torch.device) -> list[int]:
    """The cards whose random state is to be kept: the one in use."""
    if device.type != "cuda":
        return []
    return [torch.cuda.current_device() if device.index is None else device.index]


def plan(source: str | Path | Task, settings: RaceSettings) -> RacePlan:
    """What a race would do, with an estimate of its time and memory in ``outlook``; nothing is trained."""
    return make_plan(source if isinstance(source, Task) else open_source(source), settings)


def _race(
    task: Task,
    settings: RaceSettings,
    folder: Path,
    resume: bool,
    live: bool,
    on_event: OnEvent | None,
    command: str | None,
) -> RaceResult:
    started, began = time.monotonic(), datetime.now().strftime("%Y-%m-%d %H:%M")
    device = machine.device_for(settings.device)
    written = read_plan(folder / "race.json")
    agreed = _agree(make_plan(task, settings, outlook=False), written, folder, resume)
    if written is None or written.outlook is None:
        agreed = make_plan(task, settings)
        _make(folder)
        agreed.save(folder / "race.json")
    command = command or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    objective: Objective = find("models", task.kind).objective  # type: ignore[attr-defined]
    shown = LiveTable(agreed, objective.metric, objective.better)
    watcher: AbstractContextManager[Any] = shown if live else nullcontext(lambda event: None)
    with watcher as show:

        def tell(event: dict[str, Any]) -> None:
            show(event)
            if on_event is not None:
                on_event(event)

        tell({"event": "plan", "text": str(agreed.outlook), "plan": agreed})
        entered = [
            _standing(task, settings, agreed, entry, objective, folder, tell, command)
            for entry in agreed.entries
        ]
    ranked = rank(entered, objective.better)
    for standing in ranked:
        look_at_test(task, settings, agreed, standing.chosen, folder)
        _add_test(standing, objective)
    _compare(ranked)
    result = RaceResult(
        kind=task.kind,
        task=task.name,
        details={**task.details, "rows": _rows(task)},
        metric=objective.metric,
        better=objective.better,
        budget=str(settings.budget),
        seeds=list(settings.seeds),
        standings=ranked,
        naive=task.naive(),
        pretext=None if settings.pretrain is None else _pretext(task, settings, agreed),
        settings={"batch size": agreed.batch_size, **_told(agreed)},
        machine=machine.facts(device),
        versions=machine.versions(),
        command=command,
        began=began,
        folder=str(folder),
    )
    _crown(task, settings, result, folder)
    result.verdict = verdict(result)
    result.wall_seconds = time.monotonic() - started
    result.save(folder / "result.json")
    report.write(result, folder / "report.html")
    if result.winner is not None:
        write_text(folder / "winner" / "report.html", (folder / "report.html").read_text(encoding="utf-8"))
    return result


def _agree(plan: RacePlan, written: RacePlan | None, folder: Path, resume: bool) -> RacePlan:
    """The plan to follow: this one, or the one in the folder where it is the same."""
    if written is None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder} is not empty and holds no race. Name another folder, or a new one")
        return plan
    if not resume:
        raise ValueError(f"{folder} holds a race already. Let it go on (resume), or name another folder")
    differences = plan.differences(written)
    if differences:
        raise ValueError(
            f"{folder} holds a race with another plan: {'; '.join(differences)}. Name another folder, or "
            f"start it with the plan it has"
        )
    return written


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"the folder {folder} cannot be made ({error.strerror or error}). Name another"
        ) from None


def _standing(
    task: Task,
    settings: RaceSettings,
    plan: RacePlan,
    entry: Entry,
    objective: Objective,
    folder: Path,
    tell: OnEvent,
    command: str,
) -> Standing:
    """Train and measure one contender."""
    trials = train_entry(task, settings, plan, entry, objective, folder, tell, command)
    lr = best_rate(trials, objective)
    standing = Standing(
        name=entry.name,
        baseline=entry.baseline,
        scratch=entry.scratch,
        lr=entry.rates[0] if lr is None else lr,
        width=entry.width,
        depth=entry.depth,
        parameters=entry.parameters,
        trials=trials,
    )
    if lr is None:
        last = trials[-1]
        standing.status, standing.note = last.status, last.note
    else:
        chosen = standing.chosen
        standing.valid = Estimate.of([t.valid[objective.metric] for t in chosen])
        seconds = sum(t.seconds for t in chosen)
        standing.tokens_per_second = sum(t.tokens for t in chosen) / seconds if seconds else None
    if standing.status == "failed":
        return standing  # what cannot run cannot be measured
    found = measure(task, settings, plan, plan.entry(entry.scratch or entry.name), folder)
    return standing.model_copy(update={name: getattr(found, name) for name in type(found).model_fields})


def _pretext(task: Task, settings: RaceSettings, plan: RacePlan) -> Pretext:
    """What the result says of the pretraining, and who sees what in it."""
    scratch = [e for e in plan.entries if e.scratch is None]
    both_ways = [e.name for e in scratch if reads_both_ways(e.spec["backbone"])]
    causal = [e.name for e in scratch if e.name not in both_ways]
    twins = {e.scratch for e in plan.entries}
    return told(task, settings, causal, [e.name for e in scratch if e.name not in twins])


def _add_test(standing: Standing, objective: Objective) -> None:
    chosen = [t for t in standing.chosen if t.test]
    if not chosen:
        return
    names = [m for m in chosen[0].test if all(m in t.test for t in chosen)]
    standing.tests = {m: Estimate.of([t.test[m] for t in chosen]) for m in names}
    standing.test = standing.tests[objective.metric]


def _compare(ranked: list[Standing]) -> None:
    """From which length on each is faster than attention."""
    names = ("attention", "bi-attention")
    attention = next((s for s in ranked if s.name in names and s.scaling is not None), None)
    if attention is None or attention.scaling is None:
        return
    rival = as_scaling(attention.scaling)
    for s in ranked:
        if s is not attention and s.scaling is not None:
            s.faster_than_attention_from = faster_from(as_scaling(s.scaling), rival)


def _crown(task: Task, settings: RaceSettings, result: RaceResult, folder: Path) -> None:
    """Name the winner, copy its best run, and gather what can be looked at."""
    if not result.finished:
        return
    device = str(machine.device_for(settings.device))
    best = {s.name: _best_trial(s, result) for s in result.finished}
    result.winner = result.finished[0].name
    copy_folder(folder / best[result.winner].folder, folder / "winner", ("checkpoints", "trial.json"))
    opened = {name: partial(runs.load, folder / trial.folder, device) for name, trial in best.items()}
    result.exhibits = exhibits.gather(task, opened, result.winner)


def _best_trial(standing: Standing, result: RaceResult) -> Trial:
    sign = 1 if result.better == "lower" else -1
    return min(standing.chosen, key=lambda t: sign * t.valid[result.metric])


def _rows(task: Task) -> dict[str, int]:
    parts = {"train": task.train, "valid": task.valid, "test": task.test}
    return {name: len(part) for name, part in parts.items()}  # type: ignore[arg-type]


def _told(plan: RacePlan) -> dict[str, Any]:
    """The settings of a plan as a report tells them."""
    hidden = ("budget", "seeds", "models", "learning_rates", "device")
    own = [e for e in plan.entries if e.scratch is None]
    rates = {e.name: ", ".join(f"{r:g}" for r in e.rates) for e in own}
    told = {k.replace("_", " "): v for k, v in plan.settings.items() if k not in hidden and v is not None}
    return {**told, "learning rates": "; ".join(f"{name} {text}" for name, text in rates.items())}


__all__ = ["Exhibits", "RacePlan", "RaceResult", "RaceSettings", "plan", "race"]
