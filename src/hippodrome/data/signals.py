"""Band-limited white noise and what is to be remembered of it: the delay and the reconstruction task.

Both are tasks of Gu, Johnson, Timalsina, Rudra, Ré 2022 (arXiv 2206.12037, "How to Train Your HiPPO"), which
ask of a model nothing but memory. Sizes here are free; the defaults are smaller than the paper's.
"""

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hippodrome.data._aligned import AlignedItem, collate, scores
from hippodrome.data.base import Task, mixed

POINTS = 32
"""At most so many points of the window are asked for."""


class Noise(Dataset):
    """Sequences of noise, each drawn from the seed and its number when it is asked for.

    The noise is x_i = sum_k (a_k cos(2 pi k i / 2t) + b_k sin(2 pi k i / 2t)) / sqrt(K) over the first t of a
    period of 2t steps, k = 1 ... K with K the highest number inside the band, a and b normal: mean zero,
    variance one, and no way to tell the past from the present by the period.

    Args:
        count: sequences.
        length: steps of each.
        lags: the targets at step i are the noise at i - lag for each of these, in this order.
        band: highest frequency in cycles a step.
        seed: of all of them; parts of one task take different ones.
    """

    def __init__(self, count: int, length: int, lags: np.ndarray, band: float, seed: int) -> None:
        self.count, self.length, self.lags, self.band, self.seed = count, length, lags, band, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> AlignedItem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        noise = self.noise(index)
        first = int(self.lags.max())
        places = np.arange(self.length)[:, None] - self.lags
        targets = np.where(np.arange(self.length)[:, None] >= first, noise[places], np.nan)
        return AlignedItem(
            torch.from_numpy(noise[:, None].astype(np.float32)), torch.from_numpy(targets.astype(np.float32))
        )

    def noise(self, index: int) -> np.ndarray:
        """One sequence (t,) in float64."""
        period = 2 * self.length
        highest = int(self.band * period)
        a, b = np.random.default_rng(mixed(self.seed, index)).standard_normal((2, highest))
        spectrum = np.zeros(self.length + 1, dtype=np.complex128)
        spectrum[1 : highest + 1] = (a - 1j * b) / 2 * period / highest**0.5
        return np.fft.irfft(spectrum, period)[: self.length]


def open_delay(
    *, length: int = 512, lag: int = 100, band: float = 0.05, count: int = 2000, seed: int = 0
) -> Task:
    """Give back at every step what came in ``lag`` steps ago; asked from the first step where there is one.

    Args:
        length: steps of a sequence.
        lag: steps of the delay.
        band: highest frequency of the noise in cycles a step; 0.5 is white.
        count: train sequences; a tenth as many validate, and as many test.
        seed: of the noise.

    Raises:
        ValueError: a lag that does not lie inside the sequence, or a band that holds no frequency.
    """
    return _task("delay", np.array([lag]), length, lag, band, count, seed, f"the input {lag} steps ago")


def open_reconstruction(
    *, length: int = 512, lag: int = 100, band: float = 0.05, count: int = 2000, seed: int = 0
) -> Task:
    """Give back at every step the last ``lag`` steps, by 32 points of them at equal distances, all at once.

    The window is sampled, from its newest to its oldest step, which loses nothing while fewer than 16 cycles
    fit into it (band times lag below 16).

    Args:
        length: steps of a sequence.
        lag: steps of the window.
        band: highest frequency of the noise in cycles a step; 0.5 is white.
        count: train sequences; a tenth as many validate, and as many test.
        seed: of the noise.

    Raises:
        ValueError: a window that does not lie inside the sequence, or a band that holds no frequency.
    """
    points = np.unique(np.linspace(0, max(lag - 1, 0), min(POINTS, max(lag, 1))).round().astype(np.int64))
    what = f"{len(points)} points of the last {lag} steps"
    return _task("reconstruction", points, length, lag, band, count, seed, what)


def _task(
    name: str, lags: np.ndarray, length: int, lag: int, band: float, count: int, seed: int, what: str
) -> Task:
    if not 1 <= lag < length:
        raise ValueError(
            f"{name}: a lag lies inside the sequence of {length} steps; got {lag}. Take a shorter one."
        )
    if not 1 / (2 * length) <= band <= 0.5:
        raise ValueError(
            f"{name}: the band ends between one cycle in {2 * length} steps and half a cycle a step; got "
            f"{band:g}. Take 0.05, say."
        )
    if count < 1:
        raise ValueError(f"{name}: at least one sequence to train on is needed; got {count}. Take 2000, say.")
    held = max(count // 10, 1)
    sizes = {"train": count, "valid": held, "test": held}
    train, valid, test = (
        Noise(size, length, lags, band, 3 * seed + part) for part, size in enumerate(sizes.values())
    )

    def naive() -> dict[str, dict[str, float]]:
        """The mean, and the input of the same step in the place of every target."""
        pairs = [test[i] for i in range(len(test))]
        targets = np.stack([pair.targets.numpy() for pair in pairs]).astype(np.float64)
        inputs = np.stack([pair.inputs.numpy() for pair in pairs]).astype(np.float64)
        return {"mean": scores(targets), "the input as it is": scores(targets - inputs)}

    details: dict[str, Any] = {
        "source": f"generated noise below {band:g} cycles a step",
        "asked": what,
        "known best error": {"mse": 0.0},
        "seed": seed,
        "sequences": sizes,
        "steps": length,
    }
    facts = {"channels": 1, "targets": len(lags)}
    return Task("regression", name, train, valid, test, collate, facts, None, details, naive)
