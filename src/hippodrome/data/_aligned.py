"""Sequences with targets at every step made into a regression task."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hippodrome.data.base import GIVEN_STEPS, Task
from hippodrome.shapes import RegressionBatch


class AlignedItem(NamedTuple):
    """Values (t, c), what is asked at each step (t, o), NaN for nothing, and the time steps (t,) if any."""

    inputs: Tensor
    targets: Tensor
    dt: Tensor | None = None


class AlignedSequences(Dataset):
    """Sequences of one length with targets at every step.

    Args:
        inputs: (n, t, c).
        targets: (n, t, o).
        dt: (n, t), or None where all steps are one.
        chosen: which of them this part holds.
    """

    def __init__(
        self, inputs: np.ndarray, targets: np.ndarray, dt: np.ndarray | None, chosen: np.ndarray
    ) -> None:
        self.inputs, self.targets, self.dt, self.chosen = inputs, targets, dt, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> AlignedItem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(self.chosen[index])
        inputs, targets = (
            torch.from_numpy(array[which].astype(np.float32)) for array in (self.inputs, self.targets)
        )
        dt = None if self.dt is None else torch.from_numpy(self.dt[which].astype(np.float32))
        return AlignedItem(inputs, targets, dt)


def collate(items: list[AlignedItem]) -> RegressionBatch:
    """Sequences of one length to a batch."""
    known = [item.dt for item in items if item.dt is not None]
    return RegressionBatch(
        torch.stack([item.inputs for item in items]),
        torch.stack([item.targets for item in items]),
        torch.stack(known) if known else None,
    )


def aligned_task(
    inputs: np.ndarray,
    targets: np.ndarray,
    dt: np.ndarray | None,
    parts: tuple[np.ndarray, np.ndarray, np.ndarray],
    name: str,
    where: str,
    details: dict[str, Any],
    *,
    deltas: bool = False,
) -> Task:
    """The regression task of sequences whose parts are known, scaled by statistics of the train part.

    With ``deltas`` the inputs are told twice: as they are, and how they changed since the step before.

    Raises:
        ValueError: an empty part.
    """
    for words, part in zip(("train", "validation", "test"), parts, strict=True):
        if not len(part):
            raise ValueError(
                f"{where}: the {words} part is empty: {len(inputs)} sequences are too few to cut it from. "
                f"Give three or more."
            )
    if deltas:
        inputs, details = with_deltas(inputs), {**details, "inputs": "values and their changes"}
    location, scale = _statistics(inputs[parts[0]])
    target_location, target_scale = _statistics(targets[parts[0]])
    if dt is not None:
        details = {
            **details,
            "time steps": GIVEN_STEPS,
        }
    train, valid, test = (AlignedSequences(inputs, targets, dt, part) for part in parts)

    def naive() -> dict[str, dict[str, float]]:
        """The train mean of every target."""
        spread = np.where(np.array(target_scale) > 0, target_scale, 1.0)
        error = (targets[parts[2]] - np.array(target_location)) / spread
        return {"train mean": scores(error)}

    return Task(
        kind="regression",
        name=name,
        train=train,
        valid=valid,
        test=test,
        collate=collate,
        facts={
            "channels": inputs.shape[2],
            "targets": targets.shape[2],
            "location": location,
            "scale": scale,
            "target_location": target_location,
            "target_scale": target_scale,
        },
        tokenizer=None,
        details={
            **details,
            "sequences": dict(zip(("train", "valid", "test"), map(len, parts), strict=True)),
            "steps": inputs.shape[1],
        },
        naive=naive,
    )


def with_deltas(inputs: np.ndarray) -> np.ndarray:
    """(n, t, c) with each channel's change since the step before behind them, (n, t, 2 c); zero at the first.

    As the sensor readings of HiSS are read (Bhirangi et al. 2024, arXiv 2402.10211).
    """
    return np.concatenate([inputs, np.diff(inputs, axis=1, prepend=inputs[:, :1])], -1)


def scores(error: np.ndarray) -> dict[str, float]:
    """The model's metrics of an error on scaled values; NaN counts nothing."""
    error = error[~np.isnan(error)]
    mse = float(np.square(error).mean())
    return {"mse": mse, "mae": float(np.abs(error).mean()), "r2": 1 - mse}


def _statistics(values: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and deviation of the last axis over sequences and steps, of what is there."""
    seen = ~np.isnan(values)
    count = np.maximum(seen.sum((0, 1)), 1)
    mean = np.where(seen, values, 0.0).sum((0, 1)) / count
    deviation = np.sqrt(np.square(np.where(seen, values - mean, 0.0)).sum((0, 1)) / count)
    return mean.tolist(), deviation.tolist()
