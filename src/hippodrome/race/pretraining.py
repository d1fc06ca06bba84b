"""Pretraining in a race: what each contender learns from the inputs alone, and the weights it goes on with.

Amos, Berant, Gupta 2023, arXiv 2310.02980 ("Never train from scratch"): the same model, trained first to fill
in or foretell steps of the training inputs, then on the labels.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hippodrome import runs
from hippodrome.config import build
from hippodrome.data.base import Task
from hippodrome.data.pretext import pretext_task
from hippodrome.models.pretraining import PretrainingModel
from hippodrome.race.result import Pretext, Pretraining
from hippodrome.race.settings import RaceSettings
from hippodrome.train.loop import OnEvent
from hippodrome.train.settings import TrainSettings

PRETRAINED = " pretrained"
"""Behind the name of a contender: the same model, pretrained."""


class Start(NamedTuple):
    """What came of a pretraining, and the weights the task is begun with; None where it diverged."""

    told: Pretraining
    weights: dict[str, Tensor] | None
    message: str


def pretext_of(task: Task, settings: RaceSettings, seed: int) -> Task:
    """What a race pretrains on.

    Raises:
        ValueError: a task without a pretext, in a sentence.
    """
    assert settings.pretrain is not None
    return pretext_task(task, settings.pretrain, rate=settings.mask_rate, span=settings.mask_span, seed=seed)


def pretext_spec(pretext: Task, backbone: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of the model that pretrains a backbone."""
    return {"kind": pretext.kind, **pretext.facts, "backbone": dict(backbone)}


def reads_both_ways(backbone: Mapping[str, Any]) -> bool:
    """Whether the backbone of a spec reads later steps too, and so cannot foretell them."""
    with torch.random.fork_rng([]):
        return not build(backbone, "backbones").causal


def told(task: Task, settings: RaceSettings, causal: list[str], left_out: list[str]) -> Pretext:
    """What a result says of its pretraining.

    Args:
        task: what is raced on.
        settings: with a pretext.
        causal: contenders that read only the past.
        left_out: contenders that cannot be pretrained this way.
    """
    pretext = pretext_of(task, settings, settings.seeds[0])
    masked = settings.pretrain == "masked"
    return Pretext(
        kind=pretext.facts["pretext"],
        budget=str(settings.pretraining),
        scratch_budget=str(settings.from_scratch),
        hidden=pretext.details["hidden"] if masked else None,
        span=settings.mask_span,
        sequences=pretext.details["sequences"],
        causal=causal if masked else [],
        left_out=left_out,
    )


def start(
    backbone: Mapping[str, Any],
    pretext: Task,
    settings: TrainSettings,
    place: Path,
    folder: str,
    on_event: OnEvent,
    command: str,
) -> Start:
    """Pretrain, or read what was pretrained before.

    Args:
        backbone: spec.
        pretext: what to train it on.
        settings: of the training.
        place: the run folder.
        folder: the same, relative to the race's.
        on_event: called with every event of the run; a validation is named "pretraining" there.
        command: for the run folder.
    """

    def heard(event: dict[str, Any]) -> None:
        kind = "pretraining" if event["event"] == "validation" else event["event"]
        on_event({**event, "event": kind})

    spec = {"backbone": dict(backbone)}
    result = runs.train(spec, pretext, settings, place, resume=True, on_event=heard, command=command)
    found = Pretraining(
        folder=folder,
        steps=result.steps,
        tokens=result.tokens,
        seconds=result.seconds,
        valid={k: v for k, v in result.valid.items() if k != "step"},
    )
    if result.status == "diverged":
        return Start(found, None, result.message)
    model = runs.load(place).model
    assert isinstance(model, PretrainingModel)
    return Start(found, model.handed_on(), "")
