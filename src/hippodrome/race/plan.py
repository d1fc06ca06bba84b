"""The plan of a race: who runs, at which width and rate, and what memory and time it will take."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from hippodrome.analyze.timing import peak_bytes, seconds_of
from hippodrome.config import (
    build,
    count_parameters,
    grid,
    match_width,
    option_kinds,
    own_options,
    pattern_layers,
    stack_spec,
    suggest,
    variates,
    width_step,
    with_sizes,
)
from hippodrome.data.base import Task
from hippodrome.race.files import write_text
from hippodrome.race.machine import device_for, free_bytes
from hippodrome.race.pretraining import PRETRAINED, pretext_of, pretext_spec, reads_both_ways
from hippodrome.race.settings import (
    BASELINES,
    BATCH,
    DEPTH,
    DROPOUT,
    MODELS,
    RaceSettings,
    parameters_for,
    rate,
)
from hippodrome.race.verdict import duration, size
from hippodrome.train.batches import moved
from hippodrome.train.settings import Budget

FORMAT = 1

LONGEST = 120
"""Letters of a contender's name that its folder keeps; a hybrid's pattern may have hundreds."""


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Entry(_Plain):
    """One contender: a pattern at a width, the rates it trains at, and the spec of its model.

    ``scratch`` names the contender with the same model that starts from scratch, where this one is
    pretrained.
    """

    name: str
    baseline: bool
    width: int
    depth: int
    parameters: int
    rates: list[float]
    spec: dict[str, Any]
    scratch: str | None = None

    @property
    def folder(self) -> str:
        """The name as that of a folder, which may hold no colon and no star everywhere, nor 255 letters."""
        plain = self.name.replace(":", "-").replace(" ", "-").replace("*", "a")
        if len(plain) <= LONGEST:
            return plain
        return f"{plain[:LONGEST]}…{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"


class Need(_Plain):
    """What training one contender takes here: time of one step, and memory with weights and moments."""

    step_seconds: float
    train_bytes: int
    tokens_per_step: int


class Outlook(_Plain):
    """What the whole race will take: seconds until the report, and the most memory of any contender."""

    seconds: float
    train_bytes: int
    free_bytes: int | None
    runs: int
    needs: dict[str, Need]

    def __str__(self) -> str:
        free = "" if self.free_bytes is None else f" ({size(self.free_bytes)} are free)"
        return (
            f"{self.runs} training run{'s' if self.runs > 1 else ''}, about {duration(self.seconds)} in all, "
            f"at most {size(self.train_bytes)} of memory to train{free}"
        )


class RacePlan(_Plain):
    """All that decides what a race computes. Two races with equal plans may continue each other."""

    format: int = FORMAT
    kind: str
    task: str
    data: str
    settings: dict[str, Any]
    batch_size: int
    entries: list[Entry]
    outlook: Outlook | None = None

    def entry(self, name: str) -> Entry:
        """One contender."""
        return next(e for e in self.entries if e.name == name)

    def save(self, path: Path) -> None:
        """Write it as JSON, in one piece or not at all."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    def differences(self, other: "RacePlan") -> list[str]:
        """What would be computed differently, in words; empty where one race may continue the other."""
        apart = {"outlook", "entries", "settings", "data"}
        mine, theirs = (p.model_dump(mode="json", exclude=apart) for p in (self, other))
        found = [f"{k} was {theirs[k]!r} and is {mine[k]!r}" for k in mine if mine[k] != theirs[k]]
        if self.data != other.data and not found:
            found.append("the data has changed")
        for key in {**self.settings, **other.settings}:
            now, before = self.settings.get(key), other.settings.get(key)
            if now != before:
                found.append(f"{key} was {before!r} and is {now!r}")
        if not found and [e.spec for e in self.entries] != [e.spec for e in other.entries]:
            found.append("the models are built differently")
        return found


def make_plan(task: Task, settings: RaceSettings, *, outlook: bool = True) -> RacePlan:
    """Choose what is left open, match the widths, and (with ``outlook``) try one step of each contender.

    Raises:
        ValueError: a model that does not exist or cannot be built for this task, or one that needs more
            memory than is free; the sentence says which.
    """
    asked = settings.models or MODELS[task.kind]
    baselines = BASELINES[task.kind] if settings.baselines is None else settings.baselines
    names = list(dict.fromkeys([*asked, *baselines]))
    depth = settings.depth or DEPTH[task.kind]
    wanted = settings.parameters or parameters_for(task.kind, training_values(task))
    _known_options(task.kind, settings, names)
    entries = [_entry(task, settings, name, depth, wanted, name not in asked) for name in names]
    if settings.pretrain is not None:
        pretext_of(task, settings, 0)  # refuses a task that has none
        entries = [twin for entry in entries for twin in _twins(settings, entry)]
        if all(entry.scratch is None for entry in entries):
            raise ValueError(
                f"none of {', '.join(names)} can be pretrained to foretell the next step: all read later "
                f"ones too. Take the pretext 'masked', or add a model that reads the past alone."
            )
    plan = RacePlan(
        kind=task.kind,
        task=task.name,
        data=fingerprint(task),
        settings=_identity(settings, task.kind, names, depth, wanted),
        batch_size=settings.batch_size or BATCH[task.kind],
        entries=entries,
    )
    if outlook:
        plan.outlook = look_ahead(task, settings, plan)
    return plan


def _identity(settings: RaceSettings, kind: str, names: list[str], depth: int, wanted: int) -> dict[str, Any]:
    """The settings that decide the numbers, with what was left open filled in."""
    apart = {"models", "baselines", "lengths", "workers", "batch_size"}
    if not settings.options:
        apart |= {"options"}
    if settings.pretrain is None:
        apart |= {"pretrain", "pretrain_budget", "scratch_budget", "mask_rate", "mask_span"}
    return {
        **settings.model_dump(mode="json", exclude=apart),
        "models": names,
        "depth": depth,
        "parameters": wanted,
        "budget": str(settings.budget),
        **({} if settings.pretrain is None else {"pretrain_budget": str(settings.pretraining)}),
        "dropout": DROPOUT[kind] if settings.dropout is None else settings.dropout,
    }


def _entry(task: Task, settings: RaceSettings, name: str, depth: int, wanted: int, baseline: bool) -> Entry:
    layers = pattern_layers(name, depth)
    dropout = DROPOUT[task.kind] if settings.dropout is None else settings.dropout

    own, others = own_options(task.kind, settings.options)
    facts = {**task.facts, **own}
    sizes = grid(task.kind, facts, task.details)
    inside = option_kinds(name)
    given = {kind: more for kind, more in others.items() if kind in inside}
    options = with_sizes(name, given, sizes, variates(task.kind, facts))

    def spec(width: int) -> dict[str, Any]:
        stack = stack_spec(name, width, len(layers), options=options, dropout=dropout)
        return {"kind": task.kind, **facts, "backbone": stack}

    try:
        width = match_width(spec, wanted, width_step(task.kind, sizes))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return Entry(
        name=name,
        baseline=baseline,
        width=width,
        depth=len(layers),
        parameters=count_parameters(spec(width)),
        rates=list(settings.learning_rates or (rate(task.kind, sorted(inside)),)),
        spec=spec(width),
    )


def _known_options(kind: str, settings: RaceSettings, names: list[str]) -> None:
    """Raises ValueError for options of what is in no contender and is not the model."""
    known = sorted({kind}.union(*(option_kinds(name) for name in names)))
    for kind in settings.options:
        if kind not in known:
            raise ValueError(f"options for {kind!r}, which is in no contender{suggest(kind, known)}")


def _twins(settings: RaceSettings, entry: Entry) -> list[Entry]:
    """A contender from scratch and pretrained; alone where it would read what it is to foretell."""
    if settings.pretrain == "causal" and reads_both_ways(entry.spec["backbone"]):
        return [entry]
    return [entry, entry.model_copy(update={"name": entry.name + PRETRAINED, "scratch": entry.name})]


def training_values(task: Task) -> int:
    """How many values there are to learn from: tokens, or steps of all sequences times their channels."""
    counted: Any = task.details.get("tokens")
    if isinstance(counted, Mapping) and "train" in counted:
        return int(counted["train"])
    items = len(task.train)  # type: ignore[arg-type]
    first: Any = task.train[0][0]
    if task.kind in ("forecasting", "imputation"):  # windows overlap: each adds one step
        return (items + first.shape[0]) * first.shape[-1]
    return items * first.numel()


def fingerprint(task: Task) -> str:
    """A few letters that change when the data does: its facts, its counts, and a few of its items."""
    digest = hashlib.sha256()
    for part in (task.train, task.valid, task.test):
        n = len(part)  # type: ignore[arg-type]
        digest.update(str(n).encode())
        for i in sorted({0, n // 3, n // 2, n - 1}):
            for value in part[i]:
                data = value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()
                digest.update(data)
    digest.update(json.dumps(task.facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def look_ahead(task: Task, settings: RaceSettings, plan: RacePlan) -> Outlook:
    """Try one training step of each contender, on a single row first so that no guess can fill the memory.

    Raises:
        ValueError: a contender needs more memory than is free; the sentence says which and what to do.
    """
    device = device_for(settings.device)
    free = free_bytes(device)
    pretext = None if settings.pretrain is None else pretext_of(task, settings, 0)
    needs: dict[str, Need] = {}
    runs, seconds = 0, 0.0
    for entry in plan.entries:
        count = len(entry.rates) + len(settings.seeds) - 1
        if pretext is None or entry.scratch is None:
            need = needs[entry.name] = _need(task, entry, plan.batch_size, device, free)
            budget, more = settings.from_scratch, len(settings.lengths_for(task.kind)) * 2.0
        else:  # on the task it takes what its twin takes
            spec = pretext_spec(pretext, entry.spec["backbone"])
            before = entry.model_copy(update={"spec": spec})
            first = needs[entry.name] = _need(pretext, before, plan.batch_size, device, free)
            need, budget, more = needs[entry.scratch], settings.budget, 0.0
            runs += count
            more += count * _training_seconds(settings.pretraining, first)
            more += count * _validation_seconds(pretext, settings, plan.batch_size, first)
        one = _training_seconds(budget, need) + _validation_seconds(task, settings, plan.batch_size, need)
        runs += count
        seconds += count * one + more
    most = max(need.train_bytes for need in needs.values())
    return Outlook(seconds=seconds, train_bytes=most, free_bytes=free, runs=runs, needs=needs)


def _training_seconds(budget: Budget, need: Need) -> float:
    if budget.seconds is not None:
        return budget.seconds
    steps = budget.steps if budget.steps is not None else (budget.tokens or 0) / max(need.tokens_per_step, 1)
    return steps * need.step_seconds


def _validation_seconds(task: Task, settings: RaceSettings, batch_size: int, need: Need) -> float:
    """Validations and the test: a forward pass takes about a third of a step."""
    every = -(-len(task.valid) // batch_size)  # type: ignore[arg-type]
    test = -(-len(task.test) // batch_size)  # type: ignore[arg-type]
    usual = min(every, settings.valid_batches or every)
    return (settings.validations * usual + every + test) * need.step_seconds / 3


def batch_of(task: Task, rows: int, device: torch.device) -> Any:
    """The first rows of the training set as a batch on the device."""
    count = len(task.train)  # type: ignore[arg-type]
    return moved(task.collate([task.train[i % count] for i in range(rows)]), device)


def _need(task: Task, entry: Entry, batch_size: int, device: torch.device, free: int | None) -> Need:
    try:
        return _try(task, entry, batch_size, device, free)
    except (RuntimeError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        text = (str(error).strip().splitlines() or [""])[0][:300]
        name = type(error).__name__
        raise ValueError(f"{entry.name} cannot run a training step: {name}: {text}") from error


def _try(task: Task, entry: Entry, batch_size: int, device: torch.device, free: int | None) -> Need:
    with torch.random.fork_rng([]):
        model = build(entry.spec).to(device)
    # Weights and the optimizer's two moments; the gradients are in the peak of the step.
    fixed = 3 * sum(p.numel() * p.element_size() for p in model.parameters())

    def step(batch: Any) -> None:
        model.loss(batch).backward()

    def clean(batch: Any) -> None:
        step(batch)
        model.zero_grad(set_to_none=True)

    one, whole = batch_of(task, 1, device), batch_of(task, batch_size, device)
    try:
        clean(one)
    except (RuntimeError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        text = (str(error).strip().splitlines() or [""])[0][:300]
        raise ValueError(
            f"{entry.name} cannot run a training step: {type(error).__name__}: {text}"
        ) from error
    guess = fixed + batch_size * peak_bytes(lambda: step(one), device)
    model.zero_grad(set_to_none=True)
    if free is not None and guess > free:
        raise ValueError(
            f"{entry.name} would need about {size(guess)} of memory to train at a batch of {batch_size}, and "
            f"{size(free)} are free. Take a smaller batch, fewer parameters or shorter sequences."
        )
    taken = seconds_of(lambda: clean(whole), device, repeats=2, at_most=5.0)
    peak = peak_bytes(lambda: step(whole), device)
    return Need(step_seconds=taken, train_bytes=fixed + peak, tokens_per_step=model.tokens(whole))
