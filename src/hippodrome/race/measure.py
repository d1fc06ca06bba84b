"""Measuring a contender beside its training: counted cost, memory, a step, and cost against length."""

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from hippodrome.analyze.cost import cost
from hippodrome.analyze.timing import Scaling, scaling, training_step_bytes
from hippodrome.config import build
from hippodrome.data.base import Task
from hippodrome.race.files import write_text
from hippodrome.race.machine import device_for
from hippodrome.race.plan import Entry, RacePlan, batch_of
from hippodrome.race.result import ScalingData
from hippodrome.race.settings import RaceSettings


class Measures(BaseModel):
    """What does not depend on training: fields as in ``Standing``."""

    model_config = ConfigDict(extra="forbid")
    context: int
    state_bytes: int | None
    flops_per_token: float
    bytes_per_token: int | None
    uncounted: list[str]
    train_bytes: int
    step_seconds: float | None
    scaling: ScalingData | None


def measure(task: Task, settings: RaceSettings, plan: RacePlan, entry: Entry, folder: Path) -> Measures:
    """Measure a fresh model of this contender; what is written of an earlier measurement is read instead."""
    written = folder / "contenders" / entry.folder / "measures.json"
    if written.exists():
        return Measures.model_validate_json(written.read_text(encoding="utf-8"))
    device = device_for(settings.device)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = build(entry.spec).to(device)
        found = _measure(task, settings, plan, model, device)
    written.parent.mkdir(parents=True, exist_ok=True)
    write_text(written, found.model_dump_json(indent=1) + "\n")
    return found


def _measure(
    task: Task, settings: RaceSettings, plan: RacePlan, model: Any, device: torch.device
) -> Measures:
    one, whole = (batch_of(task, rows, device) for rows in (1, plan.batch_size))
    counted = cost(model, one)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    step = scaling(model.backbone, [backbone_length(model, one)], repeats=3).step_seconds[0]
    return Measures(
        context=counted.length,
        state_bytes=counted.state_bytes,
        flops_per_token=counted.flops_per_token,
        bytes_per_token=counted.bytes_per_token,
        uncounted=list(counted.uncounted),
        # The peak of the step holds the gradients already; weights and two moments come on top.
        train_bytes=3 * weights + training_step_bytes(model, whole),
        step_seconds=step,
        scaling=_against_length(model.backbone, settings.lengths_for(task.kind)),
    )


def backbone_length(model: Any, batch: Any) -> int:
    """How many tokens the backbone reads for a row of this batch: patches, where the model cuts patches."""
    seen: list[int] = []
    hook = model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    try:
        with torch.no_grad():
            model.loss(batch)
    finally:
        hook.remove()
    return max(seen, default=1)


def _against_length(backbone: Any, lengths: tuple[int, ...]) -> ScalingData | None:
    """Time and memory at each length, as far as the backbone takes them."""
    while lengths:
        try:
            return _plain(scaling(backbone, lengths, repeats=3, seconds_each=1.0))
        except ValueError:  # a mixer with a longest sequence
            lengths = lengths[:-1]
    return None


def _plain(found: Scaling) -> ScalingData:
    return ScalingData(
        lengths=list(found.lengths),
        forward_seconds=list(found.forward_seconds),
        forward_bytes=list(found.forward_bytes),
        step_seconds=list(found.step_seconds),
    )


def as_scaling(data: ScalingData) -> Scaling:
    """Back to the form that ``faster_from`` reads."""
    columns = (data.lengths, data.forward_seconds, data.forward_bytes, data.step_seconds)
    return Scaling(*(tuple(column) for column in columns))  # type: ignore[arg-type]
