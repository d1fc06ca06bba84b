"""The simulated walker: its motion obeys its own laws, and its readings drift as noise makes them."""

import numpy as np
import pytest
import torch

from hippodrome.data import open_source
from hippodrome.data._aligned import with_deltas
from hippodrome.data.inertial import EVERY, RATE, dead_reckoning, walks


def test_without_noise_the_readings_integrate_to_the_truth() -> None:
    walk = walks(5, 400, 0.0, np.random.default_rng(0))
    velocity, position = dead_reckoning(walk.readings)
    np.testing.assert_allclose(velocity, walk.velocity, atol=1e-12)
    np.testing.assert_allclose(position, walk.position, atol=1e-10)
    # The acceleration to the left is that of the curve: in the body's frame, the velocity's change.
    speed = np.linalg.norm(walk.velocity, axis=-1)
    heading = np.cumsum(walk.readings[..., 3], 1) / RATE
    left = np.stack([-np.sin(heading), np.cos(heading)], -1)[:, 1:-1]
    change = (walk.velocity[:, 2:] - walk.velocity[:, :-2]) * RATE / 2
    moving = speed[:, 1:-1] > 0.3
    error = (change * left).sum(-1)[moving] - walk.readings[:, 1:-1, 1][moving]
    assert float(np.abs(error).mean()) < 0.03
    assert float(speed.min()) >= 0
    assert 0.8 < float(speed[:, 100:].mean()) < 1.6


def test_the_task_asks_five_times_a_second_and_knows_what_integration_tells() -> None:
    task = open_source("inertial", count=20, length=100, targets=["velocity", "position"])
    item = task.train[0]
    assert item.inputs.shape == (100, 4)
    asked = ~item.targets.isnan().any(1)
    assert asked.nonzero()[:, 0].tolist() == list(range(EVERY - 1, 100, EVERY))
    assert task.facts["targets"] == 4
    assert [len(part) for part in (task.train, task.valid, task.test)] == [20, 4, 4]
    found = task.naive()
    assert 0 < found["dead reckoning"]["mse"] < found["train mean"]["mse"]
    quiet = open_source("inertial", count=20, length=100, noise=0.0).naive()
    assert quiet["dead reckoning"]["mse"] < 1e-20
    again = open_source("inertial", count=20, length=100, targets=["velocity", "position"]).train[0]
    assert torch.equal(again.inputs, item.inputs)


def test_changes_are_read_beside_the_values() -> None:
    plain = open_source("inertial", count=5, length=50)
    both = open_source("inertial", count=5, length=50, deltas=True)
    x, y = plain.train[2].inputs, both.train[2].inputs
    assert both.facts["channels"] == 8
    assert torch.equal(y[:, :4], x)
    torch.testing.assert_close(y[1:, 4:], x[1:] - x[:-1])
    assert not y[0, 4:].any()
    assert with_deltas(np.ones((2, 3, 1)))[..., 1].any() == 0


def test_what_cannot_be_asked_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="'velocity' and 'position'"):
        open_source("inertial", targets=["speed"])
    with pytest.raises(ValueError, match="walks of 10 readings or more"):
        open_source("inertial", length=9)
