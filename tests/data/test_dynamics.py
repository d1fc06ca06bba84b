"""Trajectories of known laws: the integrator's values, what is kept of motion, pairs, and naive scores."""

from typing import Any

import numpy as np
import pytest

from hippodrome.data import open_source
from hippodrome.data.dynamics import ENVIRONMENTS, integrate, invariant, lorenz, lotka_volterra


def test_states_of_lorenz_and_of_prey_and_hunters_at_known_times() -> None:
    found = integrate(lorenz, np.array([-8.0, 8.0, 27.0]), 0.001, 1000)[-1]
    np.testing.assert_allclose(found, [9.057168, 14.558949, 18.415294], atol=2e-6)
    path = integrate(lotka_volterra(0.5, 0.75, 0.75, 0.5), np.array([1.0, 2.0]), 0.1, 100)
    np.testing.assert_allclose(path[-1], [0.710513, 0.106506], atol=2e-6)
    np.testing.assert_allclose(invariant(path, 0.5, 0.75, 0.75, 0.5), 1.903426, atol=2e-6)


def test_runge_kutta_is_of_order_four_and_takes_many_states_at_once() -> None:
    def field(x: np.ndarray) -> np.ndarray:
        return x[..., ::-1] * np.array([1.0, -1.0])

    start = np.array([[1.0, 0.0], [0.0, 2.0]])
    found = integrate(field, start, 1.0, 3)
    t = np.arange(4.0)
    np.testing.assert_allclose(found[0], np.stack([np.cos(t), -np.sin(t)], 1), atol=1e-10)
    np.testing.assert_allclose(found[1], 2 * np.stack([np.sin(t), np.cos(t)], 1), atol=1e-10)


def test_steps_of_integration_may_be_counted_from_row_to_row() -> None:
    asked = []

    def field(x: np.ndarray) -> np.ndarray:
        asked.append(x)
        return -x / 3600

    found = integrate(field, np.ones(1), 3600.0, 2, inner=3)
    assert len(asked) == 4 * 3 * 2
    np.testing.assert_allclose(found[:, 0], np.exp(-np.arange(3.0)), rtol=5e-4)


@pytest.mark.parametrize("name", ["lorenz", "lotka_volterra"])
def test_a_row_is_one_trajectory_and_its_targets_are_its_next_states(name: str) -> None:
    task = open_source(name, count=10, length=12, seed=1)
    assert (len(task.train), len(task.valid), len(task.test)) == (10, 2, 2)  # type: ignore[arg-type]
    item: Any = task.train[3]
    assert item.inputs.shape == item.targets.shape
    assert item.inputs[1:].equal(item.targets[:-1])
    other: Any = open_source(name, count=10, length=12, seed=1).train[3]
    assert item.inputs.equal(other.inputs)
    changes = np.stack([(row.targets - row.inputs).numpy() for row in map(task.train.__getitem__, range(10))])
    np.testing.assert_allclose(task.facts["target_scale"], changes.std((0, 1)), rtol=1e-4)
    test = np.stack([(row.targets - row.inputs).numpy() for row in map(task.test.__getitem__, range(2))])
    wanted = np.square(test / changes.std((0, 1))).mean()
    assert task.naive()["persistence"]["mse"] == pytest.approx(wanted, rel=1e-3)


def test_environments_tell_their_law_and_obey_it() -> None:
    task = open_source("environments", count=9, length=8)
    for number, (beta, delta) in enumerate(ENVIRONMENTS):
        item: Any = task.train[number]
        assert (item.inputs[:, 2] == number).all()
        path = np.concatenate([item.inputs[:1, :2], item.targets])
        kept = invariant(path, 0.5, beta, delta, 0.5)
        np.testing.assert_allclose(kept, kept[0], rtol=1e-5)
    assert task.facts["channels"] == 3
    assert task.facts["targets"] == 2


@pytest.mark.parametrize("options", [{"count": 0}, {"length": 0}, {"rate": 0}])
def test_nothing_to_follow_is_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="are 1 or more; got"):
        open_source("lorenz", **options)
