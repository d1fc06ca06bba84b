"""Training the contenders: every rate and seed is a run folder of its own, and what is done stays done."""

import gc
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hippodrome import runs
from hippodrome.data.base import Task
from hippodrome.models.base import Objective
from hippodrome.race.files import write_text
from hippodrome.race.machine import device_for
from hippodrome.race.plan import Entry, RacePlan
from hippodrome.race.pretraining import pretext_of, start
from hippodrome.race.result import CurvePoint, Trial
from hippodrome.race.settings import RaceSettings
from hippodrome.train.journal import read_journal
from hippodrome.train.settings import Budget, TrainSettings

OnEvent = Callable[[dict[str, Any]], None]


class _DivergedError(Exception):
    """A pretraining whose loss was not finite: there is nothing to go on with."""


def train_entry(
    task: Task,
    settings: RaceSettings,
    plan: RacePlan,
    entry: Entry,
    objective: Objective,
    folder: Path,
    on_event: OnEvent,
    command: str,
) -> list[Trial]:
    """All runs of one contender: the first seed at every rate, then the other seeds at the best of them."""
    first, *others = settings.seeds
    trials = [
        _trial(task, settings, plan, entry, objective, rate, first, folder, on_event, command)
        for rate in entry.rates
    ]
    rate = best_rate(trials, objective)
    if rate is not None:
        trials += [
            _trial(task, settings, plan, entry, objective, rate, seed, folder, on_event, command)
            for seed in others
        ]
    return trials


def best_rate(trials: list[Trial], objective: Objective) -> float | None:
    """The rate of the best finished trial on validation; None where none finished."""
    done = [t for t in trials if t.status == "finished"]
    if not done:
        return None
    sign = 1 if objective.better == "lower" else -1
    return min(done, key=lambda t: (sign * t.valid[objective.metric], t.valid.get("nats", 0.0))).lr


def _trial(
    task: Task,
    settings: RaceSettings,
    plan: RacePlan,
    entry: Entry,
    objective: Objective,
    rate: float,
    seed: int,
    folder: Path,
    on_event: OnEvent,
    command: str,
) -> Trial:
    """One run, or what is written of it where it has ended already."""
    name = f"contenders/{entry.folder}/lr-{rate:g}-seed-{seed}"
    place = folder / name
    written = place / "trial.json"
    if written.exists():
        trial = Trial.model_validate_json(written.read_text(encoding="utf-8"))
        on_event(_ended(entry, trial, objective))
        return trial

    def tell(event: dict[str, Any]) -> None:
        on_event({**event, "contender": entry.name, "lr": rate, "seed": seed})

    trial = Trial(seed=seed, lr=rate, folder=name)
    budget, weights = settings.from_scratch, None
    try:
        if entry.scratch is not None:
            tell({"event": "pretraining", "fraction": 0.0})
            first = start(
                entry.spec["backbone"],
                pretext_of(task, settings, seed),
                train_settings(settings, settings.pretraining, plan, rate, seed),
                place.with_name(f"{place.name}-pretraining"),
                f"{name}-pretraining",
                tell,
                command,
            )
            trial.before, weights, budget = first.told, first.weights, settings.budget
            if weights is None:
                raise _DivergedError(f"in pretraining, {first.message}")
        tell({"event": "start"})
        result = runs.train(
            entry.spec,
            task,
            train_settings(settings, budget, plan, rate, seed),
            place,
            resume=True,
            on_event=tell,
            command=command,
            start_from=weights,
        )
        trial = _of_run(trial, result, place, objective)
        if trial.status == "finished":
            run = runs.load(place, str(device_for(settings.device)))
            trial.valid = runs.evaluate(run, task, "valid", batch_size=plan.batch_size)
            if not math.isfinite(trial.valid[objective.metric]):
                trial.status, trial.note = "diverged", f"{objective.metric} on validation is not finite"
    except _DivergedError as error:
        trial.status, trial.note = "diverged", str(error)
    except (OSError, MemoryError):
        raise
    except (ValueError, RuntimeError, ArithmeticError, TypeError, LookupError, AttributeError) as error:
        # One contender's fault, a newcomer's mixer perhaps; the others race on.
        trial.status, trial.note = "failed", _short(error)
    place.mkdir(parents=True, exist_ok=True)
    write_text(written, trial.model_dump_json(indent=1) + "\n")
    _release()
    on_event(_ended(entry, trial, objective))
    return trial


def train_settings(
    settings: RaceSettings, budget: Budget, plan: RacePlan, rate: float, seed: int
) -> TrainSettings:
    """The settings of one run."""
    return TrainSettings(
        budget=budget,
        batch_size=plan.batch_size,
        lr=rate,
        weight_decay=settings.weight_decay,
        validations=settings.validations,
        valid_batches=settings.valid_batches,
        patience=settings.patience,
        precision=settings.precision,  # type: ignore[arg-type]
        compile=settings.compile,
        workers=settings.workers,
        device=settings.device,
        seed=seed,
        log_every=5,
    )


def look_at_test(
    task: Task, settings: RaceSettings, plan: RacePlan, trials: list[Trial], folder: Path
) -> None:
    """Look at the test set once for each of these runs, and write down what was seen."""
    for trial in trials:
        if trial.test:
            continue
        run = runs.load(folder / trial.folder, str(device_for(settings.device)))
        trial.test = runs.evaluate(run, task, "test", batch_size=plan.batch_size)
        write_text(folder / trial.folder / "trial.json", trial.model_dump_json(indent=1) + "\n")


def _of_run(trial: Trial, result: runs.Result, place: Path, objective: Objective) -> Trial:
    status = "diverged" if result.status == "diverged" else "finished"
    return trial.model_copy(
        update={
            "status": status,
            "note": result.message,
            "steps": result.steps,
            "tokens": result.tokens,
            "seconds": result.seconds,
            "valid": {k: v for k, v in result.valid.items() if k != "step"},
            "curve": curve(place / "metrics.jsonl", objective.metric),
        }
    )


def curve(path: Path, metric: str, most: int = 400) -> list[CurvePoint]:
    """The journal of a run as points: about ``most`` of the training loss, and all validations."""
    records = read_journal(path) if path.exists() else []
    steps = [r for r in records if r["event"] == "step"]
    stride = max(1, len(steps) // most)
    kept = {id(r) for i, r in enumerate(steps) if i % stride == 0 or i == len(steps) - 1}
    points = []
    for r in records:
        where = {"step": r["step"], "tokens": r["tokens"], "seconds": r["seconds"]}
        if r["event"] == "validation" and metric in r:
            points.append(CurvePoint(**where, valid=_finite(r[metric])))
        elif id(r) in kept:
            points.append(CurvePoint(**where, train=_finite(r["loss"])))
    return points


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _ended(entry: Entry, trial: Trial, objective: Objective) -> dict[str, Any]:
    return {
        "event": "end",
        "contender": entry.name,
        "lr": trial.lr,
        "seed": trial.seed,
        "status": trial.status,
        "note": trial.note,
        "step": trial.steps,
        "tokens": trial.tokens,
        "seconds": trial.seconds,
        "valid": trial.valid.get(objective.metric),
    }


def _short(error: Exception) -> str:
    """The first line of an error, with its kind where it does not speak in sentences."""
    text = (str(error).strip().splitlines() or [""])[0][:300]
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def read_plan(path: Path) -> RacePlan | None:
    """The plan in a folder; None where there is none."""
    if not path.exists():
        return None
    try:
        return RacePlan.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        raise ValueError(f"{path} is not a plan that this version reads. Name another folder") from None
