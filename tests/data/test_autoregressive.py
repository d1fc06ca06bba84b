"""Autoregressions: their law, the best forecast, series without noise, and what is refused."""

from typing import Any

import numpy as np
import pytest

from hippodrome.data import open_source
from hippodrome.data.autoregressive import answer
from hippodrome.data.base import Task


def values_of(task: Task) -> np.ndarray:
    """The train part and what follows, one number a step."""
    windows: Any = task.train
    return windows.values[:, 0].double().numpy()


def test_best_error_is_what_the_oracle_reaches_and_nothing_simple_does() -> None:
    task = open_source("autoregressive", count=40_000, horizon=8, lag=5, seed=3)
    found, best = task.naive(), task.details["known best error"]
    assert found["oracle"]["mse"] == pytest.approx(best["mse"], rel=0.05)
    assert found["oracle"]["mae"] == pytest.approx(best["mae"], rel=0.05)
    assert min(found[name]["mse"] for name in found if name != "oracle") > 1.05 * best["mse"]
    assert task.facts["normalization"] == "none"


def test_the_series_obeys_its_coefficients_with_the_noise_asked_for() -> None:
    task = open_source("autoregressive", count=20_000, lag=7, noise=0.3, seed=1)
    phi = np.array(task.details["coefficients"])
    assert len(phi) == 7
    y = values_of(task)
    past = np.stack([y[7 - i : len(y) - i] for i in range(1, 8)], 1)
    shocks = y[7:] - past @ phi
    assert shocks.std() == pytest.approx(0.3, rel=0.03)
    assert abs(np.corrcoef(shocks[1:], shocks[:-1])[0, 1]) < 0.03
    fitted = np.linalg.lstsq(past, y[7:], rcond=None)[0]
    assert np.abs(fitted - phi).max() < 0.05


def test_without_noise_waves_go_on_for_ever_and_are_foretold_without_error() -> None:
    task = open_source("autoregressive", noise=0.0, lag=6, count=3000, seed=2)
    assert task.naive()["oracle"]["mse"] < 1e-12
    assert task.details["known best error"]["mse"] == 0
    values = values_of(task)
    assert values[-500:].std() == pytest.approx(values[:500].std(), rel=0.2)


def test_given_coefficients_and_the_answer_to_a_shock() -> None:
    task = open_source("autoregressive", coefficients=[0.5, -0.25], horizon=3)
    assert task.details["coefficients"] == [0.5, -0.25]
    assert answer(np.array([0.5, -0.25]), 4).tolist() == [1.0, 0.5, 0.0, -0.125]
    scale = task.facts["scale"][0]
    assert task.details["known best error"]["mse"] == pytest.approx((1 + 1.25 + 1.25) / 3 / scale**2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"coefficients": [1.2]}, "largest root has size 1.2"),
        ({"coefficients": [2.0, -1.0]}, "largest root has size 1"),
        ({"coefficients": []}, "got coefficients"),
        ({"noise": -1.0}, "noise=-1"),
        ({"lag": 0}, "lag=0"),
    ],
)
def test_what_cannot_be_meant(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_source("autoregressive", **options)
