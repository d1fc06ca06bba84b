"""Sequences of values standardized one by one, or drawn anew for training: warped, scaled, jittered."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hippodrome.data.base import Task, mixed

KNOTS = 4
"""Places at which the pace of a warped sequence is drawn."""


def standardized(values: np.ndarray) -> np.ndarray:
    """A sequence (t, c) with mean 0 and deviation 1 in each channel; a constant channel becomes zeros.

    Level and size are taken away, which helps where they say nothing of the class and hurts where they do.
    """
    seen = ~np.isnan(values)
    count = np.maximum(seen.sum(0), 1)
    centred = values - np.where(seen, values, 0.0).sum(0) / count
    size = np.sqrt(np.square(np.where(seen, centred, 0.0)).sum(0) / count)
    # What is left of a constant is rounding, which must not be blown up.
    rounding = 1e-6 * np.abs(np.where(seen, values, 0.0)).max(0, initial=0.0)
    return np.where(size > rounding, centred / np.where(size > 0, size, 1.0), 0.0 * centred).astype(
        np.float32
    )


def varied(values: np.ndarray, strength: float, numbers: np.random.Generator) -> np.ndarray:
    """A sequence (t, c) as it might have been as well, of the same length.

    Time is warped: pace and ends are drawn, 20 % and up to 5 % of the length; each channel is scaled by a
    factor around 1 (deviation 10 %), and noise of 3 % of its deviation is added; all times ``strength``. The
    kinds are those of Um et al. 2017, arXiv 1706.00527, section 3.2; the sizes are ours.
    """
    t, c = values.shape
    pace = np.exp(0.2 * strength * numbers.standard_normal(KNOTS))
    pace = np.interp(np.linspace(0, KNOTS - 1, t), np.arange(KNOTS), pace)
    places = np.concatenate([[0.0], np.cumsum(pace[1:] + pace[:-1])])
    low, high = 0.05 * strength * numbers.random(2)
    low, high = min(low, 0.4), 1 - min(high, 0.4)
    places = (t - 1) * (low + (high - low) * places / max(places[-1], 1e-9))
    warped = np.stack([np.interp(places, np.arange(t), column) for column in values.T], 1)
    factor = 1 + 0.1 * strength * numbers.standard_normal(c)
    seen = ~np.isnan(values)
    known = np.where(seen, values, 0.0)
    count = np.maximum(seen.sum(0), 1)
    mean = known.sum(0) / count
    size = np.sqrt(np.square(np.where(seen, values - mean, 0.0)).sum(0) / count)
    noise = 0.03 * strength * size * numbers.standard_normal((t, c))
    return (mean + factor * (warped - mean) + noise).astype(np.float32)


class Varied(Dataset):
    """A set of labelled sequences whose items are ``varied`` anew on each visit."""

    renewed = True

    def __init__(self, inner: Any, strength: float, seed: int) -> None:
        self.inner, self.strength, self.seed = inner, strength, seed

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        if index < 0:
            raise IndexError(index)
        item = self.inner[index % len(self.inner)]
        numbers = np.random.default_rng(mixed(self.seed, index))
        return item._replace(inputs=torch.from_numpy(varied(item.inputs.numpy(), self.strength, numbers)))


def with_variety(task: Task, strength: float, seed: int) -> Task:
    """The task with its training sequences drawn anew; the same task for a strength of 0.

    Raises:
        ValueError: a strength below 0.
    """
    if strength < 0:
        raise ValueError(
            f"augment is how strongly training sequences are varied, 0 or more; got {strength:g}. Take 1, or "
            f"0 for none."
        )
    if not strength:
        return task
    return task._replace(
        train=Varied(task.train, strength, seed), details={**task.details, "augment": strength}
    )
