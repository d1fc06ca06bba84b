"""Autoregressions: series whose law, spectrum and best possible forecast are known."""

import math
from typing import Any

import numpy as np

from hippodrome.data._series import Series, borders, origins, series_task
from hippodrome.data.base import Task

_SPLIT = (0.7, 0.1, 0.2)
_REST = 1000
"""Steps that are dropped until the process has forgotten how it began."""


def open_autoregressive(
    *,
    count: int = 6000,
    look_back: int = 96,
    horizon: int = 24,
    seed: int = 0,
    lag: int = 6,
    noise: float = 1.0,
    coefficients: list[float] | None = None,
) -> Task:
    """y_t = sum_i phi_i y_{t-i} + noise w_t, w normal, i = 1 .. p: who knows phi forecasts best.

    Box, Jenkins 1970, "Time series analysis", section 3.2. Unless given, phi is that of p = ``lag`` poles:
    pairs of random angle, and one of them real where p is odd, at distances of 0.7 to 0.97 from zero. At lead
    h the best forecast is wrong by variance noise^2 sum_{j < h} psi_j^2, psi the answer to an impulse; the
    mean over leads, on scaled values, is ``details["known best error"]``. That is an expectation:
    ``naive()["oracle"]`` is the error of the very same forecast on this test set.

    Without noise the series begins at normal values and the drawn poles lie on the unit circle, so that it is
    a sum of waves that never dies, foretold without error by p values of the past.

    The mean of the process is known to be zero, so the task says that level and size of a window mean
    nothing (``normalization`` "none" of the model). ``details["coefficients"]`` holds phi.

    Args:
        count: steps.
        look_back: steps of the past a forecast reads.
        horizon: steps to forecast.
        seed: of poles and noise.
        lag: order p of a process that is drawn.
        noise: deviation of the noise; 0 for none.
        coefficients: phi_1 .. phi_p instead.

    Raises:
        ValueError: a process that grows without end, a negative noise, or too few steps for the windows.
    """
    if noise < 0 or lag < 1:
        raise ValueError(
            f"autoregressive: the order is 1 or more and the noise 0 or more; got lag={lag} and "
            f"noise={noise}. Correct them."
        )
    numbers = np.random.default_rng(seed)
    phi = _drawn(numbers, lag, noise > 0) if coefficients is None else np.array(coefficients, float)
    radius = _radius(phi)
    if not phi.size or not np.isfinite(phi).all() or radius > 1 + 1e-9 or (noise > 0 and radius > 1 - 1e-6):
        raise ValueError(
            f"autoregressive: the roots of z^p - phi_1 z^(p-1) - ... lie inside the unit circle, or without "
            f"noise on it; got coefficients {coefficients}, whose largest root has size {radius:.4g}. Take "
            f"smaller ones."
        )
    p, rest = len(phi), _REST if noise > 0 else 0
    values = np.zeros(p + rest + count)
    values[:p] = numbers.standard_normal(p)
    shocks = noise * numbers.standard_normal(rest + count)
    for step in range(rest + count):
        values[p + step] = phi @ values[step : p + step][::-1] + shocks[step]
    series = Series("autoregressive", values[p + rest :, None], borders(count, _SPLIT, "autoregressive"))
    details: dict[str, Any] = {
        "source": "generated autoregression",
        "seed": seed,
        "coefficients": phi.tolist(),
        "noise": noise,
        "rows": count,
        "sampling": "steps of 1",
        "split": "0.7/0.1/0.2",
    }
    name = "autoregressive"
    task = series_task([series], name, name, details, look_back=look_back, horizon=horizon, season=1)
    scale = float(task.facts["scale"][0])
    psi = answer(phi, horizon)
    variance = np.square(noise * psi).cumsum() / scale**2
    best = {"mse": float(variance.mean()), "mae": float(np.sqrt(2 * variance / math.pi).mean())}

    def naive() -> dict[str, dict[str, float]]:
        """The usual baselines, and the forecast of one who knows phi."""
        starts = np.asarray(origins(series, 2, look_back, horizon))
        future = series.values[starts[:, None] + np.arange(horizon), 0]
        errors = (_forecast(series.values[:, 0], starts, phi, horizon) - future) / scale
        oracle = {"mse": float(np.square(errors).mean()), "mae": float(np.abs(errors).mean())}
        return {**task.naive(), "oracle": oracle}

    facts = {**task.facts, "normalization": "none"}
    return task._replace(facts=facts, naive=naive, details={**task.details, "known best error": best})


def answer(phi: np.ndarray, length: int) -> np.ndarray:
    """psi_0 .. psi_{length-1}: what a shock of one leaves behind."""
    psi = np.zeros(length + len(phi))
    psi[len(phi)] = 1.0
    for step in range(len(phi) + 1, len(psi)):
        psi[step] = phi @ psi[step - len(phi) : step][::-1]
    return psi[len(phi) :]


def _drawn(numbers: np.random.Generator, lag: int, inside: bool) -> np.ndarray:
    """The coefficients of ``lag`` poles at random."""
    pairs = lag // 2
    # Angles apart from one another, so that no two waves are alike.
    angle = (np.arange(pairs) + numbers.uniform(0.15, 0.85, pairs)) * math.pi / max(1, pairs)
    size = numbers.uniform(0.7, 0.97, lag) if inside else np.ones(lag)
    poles = size[:pairs] * np.exp(1j * angle)
    real = [size[-1] * numbers.choice([-1.0, 1.0])] if lag % 2 else []
    return -np.poly(np.concatenate([poles, poles.conj(), real])).real[1:]


def _radius(phi: np.ndarray) -> float:
    """The size of the largest pole."""
    roots = np.roots(np.concatenate([[1.0], -phi])) if np.isfinite(phi).all() else np.array([np.inf])
    return float(np.abs(roots).max(initial=0.0))


def _forecast(values: np.ndarray, starts: np.ndarray, phi: np.ndarray, horizon: int) -> np.ndarray:
    """The expectation of the next ``horizon`` values behind each start."""
    p = len(phi)
    known = np.concatenate([np.zeros(p), values])
    line = np.empty((len(starts), p + horizon))
    line[:, :p] = known[starts[:, None] + np.arange(p)]
    for step in range(horizon):
        line[:, p + step] = line[:, step : p + step][:, ::-1] @ phi
    return line[:, p:]
