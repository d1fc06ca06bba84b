"""The memory tasks: what is asked lies where it should, and the noise has the band and size it says."""

import numpy as np
import pytest
import torch

from hippodrome.data import open_source
from hippodrome.data.signals import Noise


def test_delay_asks_for_the_input_some_steps_ago() -> None:
    task = open_source("delay", length=40, lag=7, count=20, band=0.2)
    assert (len(task.train), len(task.valid), len(task.test)) == (20, 2, 2)  # type: ignore[arg-type]
    item = task.train[3]
    assert bool(item.targets[:7].isnan().all())
    assert torch.equal(item.targets[7:, 0], item.inputs[:-7, 0])
    assert torch.equal(task.train[3].inputs, item.inputs)
    assert not torch.equal(task.valid[0].inputs, task.train[0].inputs)
    again = open_source("delay", length=40, lag=7, count=20, band=0.2, seed=1)
    assert not torch.equal(again.train[3].inputs, item.inputs)


def test_reconstruction_asks_for_points_of_the_whole_window() -> None:
    task = open_source("reconstruction", length=120, lag=63, count=10)
    item, points = task.test[0], task.facts["targets"]
    assert points == 32
    assert bool(item.targets[:62].isnan().all())
    assert torch.equal(item.targets[100], item.inputs[100 - 2 * torch.arange(32), 0])
    short = open_source("reconstruction", length=20, lag=5, count=10)
    assert torch.equal(short.train[0].targets[9], short.train[0].inputs[5:10, 0].flip(0))


def test_noise_has_variance_one_and_nothing_above_its_band() -> None:
    noise = Noise(400, 256, np.array([1]), 0.1, 0)
    values = np.stack([noise.noise(i) for i in range(400)])
    assert values.var() == pytest.approx(1, abs=0.03)
    # Over the whole period the band is exact; a piece of it leaks, so a window is put on.
    power = np.square(np.abs(np.fft.rfft(values * np.hanning(256), axis=1))).mean(0)
    above = np.fft.rfftfreq(256) > 0.11
    assert power[above].sum() < 1e-4 * power.sum()
    assert power[np.fft.rfftfreq(256) < 0.09].sum() > 0.8 * power.sum()


def test_the_mean_scores_one() -> None:
    found = open_source("delay", count=400).naive()
    assert found["mean"]["mse"] == pytest.approx(1, abs=0.1)
    assert found["the input as it is"]["mse"] == pytest.approx(2, abs=0.3)
    assert found["mean"]["r2"] == pytest.approx(1 - found["mean"]["mse"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lag": 40}, "a lag lies inside the sequence of 40 steps; got 40"),
        ({"lag": 0}, "a lag lies inside"),
        ({"band": 0.6}, "half a cycle a step; got 0.6"),
        ({"band": float("nan")}, "takes a finite number as 'band'; got nan"),
        ({"count": 0}, "at least one sequence to train on is needed; got 0"),
    ],
)
@pytest.mark.parametrize("name", ["delay", "reconstruction"])
def test_sizes_that_do_not_fit(name: str, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_source(name, **{"length": 40, "lag": 7, **options})
