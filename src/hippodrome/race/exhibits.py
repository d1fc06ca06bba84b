"""What can be looked at besides numbers: texts, filled holes, forecasts, frames, the winner's confusions."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from hippodrome.data.base import Task
from hippodrome.race.result import Confusion, Exhibits, FilledExhibit, ForecastExhibit, FramesExhibit

Opened = Mapping[str, Callable[[], Any]]
"""Contenders by name, each with what loads its best run; one is held at a time."""


def gather(task: Task, opened: Opened, winner: str, *, length: int = 240) -> Exhibits:
    """The exhibits of a kind of task.

    Args:
        opened: the contenders.
        winner: whose confusions are counted.
        length: new tokens of a sample.
    """
    if task.kind == "language":
        return _samples(task, opened, length)
    if task.kind == "masked_language":
        return Exhibits(filled=_filled(task, opened, length))
    if task.kind in ("classification", "vision"):
        return Exhibits(confusion=_confusion(task, opened[winner]().model))
    if task.kind in ("regression", "encoder"):
        return Exhibits()
    if task.kind == "video":
        return Exhibits(frames=_frames(task, opened))
    return Exhibits(forecasts=_forecasts(task, opened))


def _samples(task: Task, opened: Opened, length: int) -> Exhibits:
    from hippodrome.generate import text

    if task.tokenizer is None:
        return Exhibits()
    start = task.test[0].tokens[:64].tolist()
    prompt = task.tokenizer.decode(start)
    samples = {}
    for name, load in opened.items():
        run = load()
        pieces = text(
            run.model, run.tokenizer, prompt, max_new_tokens=length, temperature=0.8, top_p=0.95, seed=0
        )
        samples[name] = "".join(pieces)
    return Exhibits(prompt=prompt, samples=samples)


def _filled(task: Task, opened: Opened, length: int) -> list[FilledExhibit]:
    """The beginnings of two test windows, all that is asked hidden, and everyone's first guesses."""
    from hippodrome.generate.filling import filled

    if task.tokenizer is None:
        return []
    n, said = len(task.test), task.tokenizer.decode  # type: ignore[arg-type]
    items = [task.test[i] for i in sorted({0, n // 2})]
    found = []
    for item in items:
        asked = item.targets[:length] != -100
        whole = torch.where(asked, item.targets[:length], item.tokens[:length])
        places = asked.nonzero()[:, 0].tolist()
        edges = [-1, *places, len(whole)]
        texts = [said(whole[a + 1 : b].tolist()) for a, b in pairwise(edges)]
        truth = [said([i]) for i in whole[places].tolist()]
        found.append((whole, places, FilledExhibit(texts=texts, truth=truth, guesses={})))
    for name, load in opened.items():
        model = load().model
        device = next(model.parameters()).device
        for whole, places, shown in found:
            hidden = whole.clone()
            hidden[places] = model.mask_token
            guesses = filled(model, hidden.to(device), at_once=True)[places]
            shown.guesses[name] = [said([i]) for i in guesses.tolist()]
    return [shown for _, places, shown in found if places]


@torch.no_grad()
def _confusion(task: Task, model: Any, rows: int = 64) -> Confusion:
    k = len(model.classes)
    counts = torch.zeros(k, k, dtype=torch.long)
    device = next(model.parameters()).device
    n = len(task.test)  # type: ignore[arg-type]
    for first in range(0, n, rows):
        batch: Any = task.collate([task.test[i] for i in range(first, min(first + rows, n))])
        answers = model.logits(batch.inputs.to(device), batch.lengths.to(device)).argmax(-1).cpu()
        for truth, answer in zip(batch.labels.tolist(), answers.tolist(), strict=True):
            counts[truth, answer] += 1
    return Confusion(classes=list(model.classes), counts=counts.tolist())


def _frames(task: Task, opened: Opened) -> list[FramesExhibit]:
    """Two test videos, at a third and two thirds of the set, and how each contender goes on."""
    from hippodrome.analyze.frames import Strip, continued, png

    n = len(task.test)  # type: ignore[arg-type]
    videos = [task.test[i].frames for i in sorted({n // 3, 2 * n // 3})]
    strips: list[list[Tensor]] = [[] for _ in videos]
    context = 0
    for load in opened.values():
        model = load().model
        for rows, video in zip(strips, videos, strict=True):
            made = continued({"": model}, video)
            context = made.context
            rows += made.frames.unbind() if not rows else made.frames[1:].unbind()
    return [
        FramesExhibit(
            rows=["the video", *opened],
            context=context,
            picture=b64encode(png(Strip(torch.stack(rows), context))).decode(),
        )
        for rows in strips
    ]


@torch.no_grad()
def _forecasts(task: Task, opened: Opened) -> list[ForecastExhibit]:
    """Two windows of the test set, at a third and two thirds of it, for the first and the last variate."""
    n = len(task.test)  # type: ignore[arg-type]
    windows = sorted({n // 3, 2 * n // 3})
    batch: Any = task.collate([task.test[i] for i in windows])
    variates = sorted({0, batch.past.shape[2] - 1})
    said: dict[str, Tensor] = {}
    levels: tuple[float, ...] = ()
    for name, load in opened.items():
        model = load().model
        said[name] = model(batch.past.to(next(model.parameters()).device))[0].cpu()
        levels = tuple(model.quantiles)
    names = [str(v) for v in task.details.get("variates") or task.details.get("targets") or []]
    shown = []
    for row, window in enumerate(windows):
        for c in variates:
            label = names[c] if c < len(names) else f"variate {c + 1}"
            shown.append(_window(batch, said, row, c, f"{label}, test window {window:,}", task, levels))
    return shown


def _window(
    batch: Any, said: dict[str, Tensor], row: int, c: int, title: str, task: Task, levels: tuple[float, ...]
) -> ForecastExhibit:
    past, truth = batch.past[row, :, c], batch.future[row, :, c]
    points = {name: out[row, :, c, 0].tolist() for name, out in said.items()}
    season = int(task.details.get("season") or 0)
    if 0 < season <= len(past):
        ahead = torch.arange(len(truth)) % season
        points["seasonal naive"] = past[len(past) - season + ahead].tolist()
    band = len(levels) > 1
    return ForecastExhibit(
        title=title,
        past=past[-max(96, 2 * len(truth)) :].tolist(),
        truth=truth.tolist(),
        points=points,
        low={name: out[row, :, c, 1].tolist() for name, out in said.items()} if band else {},
        high={name: out[row, :, c, -1].tolist() for name, out in said.items()} if band else {},
        coverage=f"The band is meant to hold {100 * (levels[-1] - levels[0]):.0f} % of what comes."
        if band
        else "",
    )
