"""Evaluation: exact sums over all rows, however they fall into batches."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch.utils.data import Dataset

from hippodrome.models.base import Model
from hippodrome.shapes import Mean
from hippodrome.train.batches import Collate, InOrder, Share, loader, moved, rows


def evaluate(
    model: Model,
    dataset: Dataset,
    collate: Collate,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    *,
    batches: int | None = None,
    chunk: int | None = None,
) -> dict[str, float]:
    """The model's metrics over a data set, as if it were one batch: totals and counts are summed.

    ``batches`` takes only the rows of so many batches, spread evenly over the set. ``chunk`` reads rows so
    many inputs at a time, in memory that does not grow with their length. The model is moved to
    ``device`` and evaluated without dropout; its training mode is restored. Raises ValueError where the data
    set is empty.
    """
    place = torch.device(device)
    model.to(place)
    mode = model.training
    model.eval()
    order = InOrder(rows(dataset), batch_size, batches, Share())
    metrics = model.metrics if chunk is None else partial(model.metrics_in_chunks, chunk=chunk)
    try:
        with torch.no_grad():
            sums = totals(metrics, loader(dataset, order, collate, 0, False), order.real, place)
    finally:
        model.train(mode)
    return quotients(sums)


def totals(
    metrics: Callable[[Any], Mapping[str, Mean]],
    batches: Iterable[Any],
    real: list[bool],
    device: torch.device,
) -> dict[str, tuple[float, int]]:
    """Total and count of each metric over the batches that are real; the device is asked once, at the end."""
    parts: dict[str, list[Mean]] = {}
    for batch, counts in zip(batches, real, strict=True):
        found = metrics(moved(batch, device))
        if counts:
            for name, mean in found.items():
                parts.setdefault(name, []).append(mean)
    return {
        name: (
            float(torch.stack([m.total.detach() for m in means]).cpu().double().sum()),
            sum(m.count for m in means),
        )
        for name, means in parts.items()
    }


def quotients(sums: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    """The means behind the totals and counts; a metric that counted nothing is not a number."""
    if not sums:
        raise ValueError("there is nothing to evaluate: the data set is empty")
    return {name: total / count if count else float("nan") for name, (total, count) in sums.items()}
