"""Generated series, chaotic and seasonal, whose best possible error is known."""

import math
from typing import Any

import numpy as np

from hippodrome.data._series import Series, borders, origins, series_task
from hippodrome.data.base import Task

_SPLIT = (0.7, 0.1, 0.2)


def open_seasonal(
    *, count: int = 4000, look_back: int = 96, horizon: int = 24, seed: int = 0, season: int = 24
) -> Task:
    """Three variates of two seasonal waves each plus noise that remembers: the best error has a closed form.

    y_t = sum_k a_k sin(2 pi t / p_k + f_k) + e_t with periods p = (season, 7 season) and
    e_t = r e_{t-1} + s w_t, w normal (an autoregression of order one: Box, Jenkins 1970, section 3.2). Who
    knows all but the noise to come is wrong by variance s^2 (1 - r^{2h}) / (1 - r^2) at lead h; the mean
    over leads and variates, on scaled values, is ``details["known best error"]``. That is an expectation:
    ``naive()["oracle"]`` is the error of the very same forecast on this test set.

    Args:
        count: steps.
        look_back: steps of the past a forecast reads.
        horizon: steps to forecast.
        seed: of phases and noise.
        season: steps of the shorter wave.

    Raises:
        ValueError: too few steps for the windows.
    """
    numbers = np.random.default_rng(seed)
    time = np.arange(count)[:, None]
    amplitude = np.array([[1.0, 2.0, 1.5], [0.5, 1.0, 2.0]])
    phase = numbers.uniform(0, 2 * math.pi, (2, 3))
    memory, size = np.array([0.5, 0.8, 0.9]), np.array([0.3, 0.4, 0.3])
    wave = sum(
        amplitude[k] * np.sin(2 * math.pi * time / period + phase[k])
        for k, period in enumerate((season, 7 * season))
    )
    shocks = numbers.standard_normal((count, 3)) * size
    noise = np.zeros((count, 3))
    noise[0] = shocks[0] / np.sqrt(1 - memory**2)
    for step in range(1, count):
        noise[step] = memory * noise[step - 1] + shocks[step]
    series = Series("seasonal", wave + noise, borders(count, _SPLIT, "seasonal"))

    lead = np.arange(1, horizon + 1)[:, None]
    variance = size**2 * (1 - memory ** (2 * lead)) / (1 - memory**2)
    task = _task(
        series, "seasonal", look_back, horizon, season, {"source": "generated waves and noise", "seed": seed}
    )
    scale = np.array(task.facts["scale"])
    best = {
        "mse": float((variance / scale**2).mean()),
        "mae": float((np.sqrt(2 * variance / math.pi) / scale).mean()),
    }

    def naive() -> dict[str, dict[str, float]]:
        """The usual baselines, and the forecast of one who knows the waves and the noise so far."""
        starts = np.asarray(origins(series, 2, look_back, horizon))
        errors = (noise[starts - 1][:, None] * memory**lead - noise[starts[:, None] + lead[:, 0] - 1]) / scale
        oracle = {"mse": float(np.square(errors).mean()), "mae": float(np.abs(errors).mean())}
        return {**task.naive(), "oracle": oracle}

    return task._replace(naive=naive, details={**task.details, "known best error": best})


def open_chaotic(
    *, count: int = 6000, look_back: int = 96, horizon: int = 24, seed: int = 0, noise: float = 0.02
) -> Task:
    """The attractor of Lorenz seen through noise: what the noise alone costs is the best possible error.

    dx/dt = 10 (y - x), dy/dt = x (28 - z) - y, dz/dt = x y - 8/3 z (Lorenz 1963, "Deterministic nonperiodic
    flow", equations 25-27), every 0.05 units of time, by Runge-Kutta of order four in steps of 0.005, with
    normal noise of ``noise`` times each variate's deviation added to what is seen. No forecast can know the
    noise to come, so its variance on scaled values, ``details["known best error"]``, is a floor for the
    squared error; chaos keeps long horizons well above it.

    Args:
        count: steps.
        look_back: steps of the past a forecast reads.
        horizon: steps to forecast.
        seed: of the starting point and the noise.
        noise: size of the noise, as a share of each variate's deviation.

    Raises:
        ValueError: too few steps for the windows.
    """
    numbers = np.random.default_rng(seed)
    start = numbers.standard_normal(3) + np.array([0.0, 0.0, 25.0])
    path = _lorenz(start, 200 + count)[200:]  # the first samples reach the attractor and are dropped
    spread = path.std(0)
    values = path + noise * spread * numbers.standard_normal((count, 3))
    series = Series("chaotic", values, borders(count, _SPLIT, "chaotic"))
    task = _task(
        series, "chaotic", look_back, horizon, 1, {"source": "generated Lorenz attractor", "seed": seed}
    )
    best = {"mse": float(np.square(noise * spread / np.array(task.facts["scale"])).mean())}
    return task._replace(details={**task.details, "known best error": best})


def _task(
    series: Series, name: str, look_back: int, horizon: int, season: int, details: dict[str, Any]
) -> Task:
    details = {**details, "rows": len(series.values), "sampling": "steps of 1", "split": "0.7/0.1/0.2"}
    return series_task([series], name, name, details, look_back=look_back, horizon=horizon, season=season)


def _lorenz(start: np.ndarray, count: int, step: float = 0.005, every: int = 10) -> np.ndarray:
    """States (count, 3) after every ``every`` steps of Runge-Kutta of order four."""
    x, y, z = start.tolist()
    path = np.empty((count, 3))
    stages = ((step / 2, step / 6), (step / 2, step / 3), (step, step / 3), (0.0, step / 6))
    for sample in range(count):
        for _ in range(every):
            a, b, c = u, v, w = x, y, z
            for ahead, weight in stages:
                du, dv, dw = 10 * (v - u), u * (28 - w) - v, u * v - 8 / 3 * w
                x, y, z = x + weight * du, y + weight * dv, z + weight * dw
                u, v, w = a + ahead * du, b + ahead * dv, c + ahead * dw
        path[sample] = x, y, z
    return path
