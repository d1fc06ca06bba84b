"""Trajectories of dynamical systems whose laws are known, as pairs of a state and the next one."""

from collections.abc import Callable
from typing import Any

import numpy as np

from hippodrome.data._aligned import aligned_task, scores
from hippodrome.data.base import Task

Field = Callable[[np.ndarray], np.ndarray]
"""States (..., c) to their derivatives by time."""

LYAPUNOV_TIME = 1 / 0.906
"""Of Lorenz's system: in so much time a small error grows e-fold (Viswanath 1998)."""

ENVIRONMENTS = [(beta, delta) for beta in (0.5, 0.75, 1.0) for delta in (0.5, 0.75, 1.0)]
"""(beta, delta) of each law, alpha and gamma being a half."""

_STEP = 0.005
"""The longest step of integration."""


def lorenz(states: np.ndarray) -> np.ndarray:
    """dx/dt = 10 (y - x), dy/dt = x (28 - z) - y, dz/dt = x y - 8/3 z (Lorenz 1963, equations 25-27)."""
    x, y, z = np.moveaxis(states, -1, 0)
    return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], -1)


def lotka_volterra(
    alpha: float | np.ndarray, beta: float | np.ndarray, delta: float | np.ndarray, gamma: float | np.ndarray
) -> Field:
    """dx/dt = alpha x - beta x y of the prey, dy/dt = delta x y - gamma y of its hunters (Lotka 1925).

    Numbers, or one for each of the states.
    """

    def field(states: np.ndarray) -> np.ndarray:
        x, y = states[..., 0], states[..., 1]
        return np.stack([alpha * x - beta * x * y, delta * x * y - gamma * y], -1)

    return field


def invariant(states: np.ndarray, alpha: float, beta: float, delta: float, gamma: float) -> np.ndarray:
    """delta x - gamma ln x + beta y - alpha ln y, which no motion of Lotka and Volterra's changes."""
    x, y = states[..., 0], states[..., 1]
    return delta * x - gamma * np.log(x) + beta * y - alpha * np.log(y)


def integrate(field: Field, start: np.ndarray, dt: float, steps: int, inner: int | None = None) -> np.ndarray:
    """States (..., steps + 1, c) at 0, dt, ..., by Runge-Kutta of order four.

    Args:
        field: the law of motion.
        start: states (..., c), all at once.
        dt: from one state to the next.
        steps: how many follow the first.
        inner: steps of integration from one state to the next; None takes as many as make them 0.005 at most,
            which suits the laws here and would never end where time counts in seconds of dates.
    """
    inner = max(1, int(np.ceil(dt / _STEP - 1e-9))) if inner is None else inner
    h = dt / inner
    x = np.asarray(start, dtype=np.float64)
    path = [x]
    for _ in range(steps):
        for _ in range(inner):
            a = field(x)
            b = field(x + h / 2 * a)
            c = field(x + h / 2 * b)
            d = field(x + h * c)
            x = x + h / 6 * (a + 2 * b + 2 * c + d)
        path.append(x)
    return np.stack(path, -2)


def open_lorenz(*, count: int = 200, length: int = 100, rate: int = 50, seed: int = 0) -> Task:
    """Trajectories on the attractor of Lorenz 1963: the state to the next one, 1 / ``rate`` of time later.

    Each begins at a normal point around (0, 0, 25) and is followed for 10 units of time before it counts.
    There is no noise. ``details`` tells the Lyapunov time in steps.

    Args:
        count: train trajectories; a fifth as many validate, and as many test.
        length: steps of a trajectory.
        rate: states a unit of time.
        seed: of the starting points.

    Raises:
        ValueError: a count, a length or a rate below one.
    """
    parts = _parts("lorenz", count, length, rate)
    numbers = np.random.default_rng(seed)
    start = numbers.standard_normal((sum(parts), 3)) + np.array([0.0, 0.0, 25.0])
    start = integrate(lorenz, start, 10.0, 1)[:, -1]
    details = {"source": "generated Lorenz attractor", "Lyapunov time in steps": LYAPUNOV_TIME * rate}
    return _task("lorenz", integrate(lorenz, start, 1 / rate, length), parts, seed, rate, details)


def open_lotka_volterra(*, count: int = 200, length: int = 20, rate: int = 2, seed: int = 0) -> Task:
    """Prey and hunters after Lotka 1925 and Volterra 1926: the state to the next one.

    alpha = gamma = 1/2, beta = delta = 3/4; trajectories begin anywhere in [1, 3]^2. No noise.

    Args:
        count: train trajectories; a fifth as many validate, and as many test.
        length: steps of a trajectory.
        rate: states a unit of time.
        seed: of the starting points.

    Raises:
        ValueError: a count, a length or a rate below one.
    """
    parts = _parts("lotka_volterra", count, length, rate)
    start = np.random.default_rng(seed).uniform(1, 3, (sum(parts), 2))
    path = integrate(lotka_volterra(0.5, 0.75, 0.75, 0.5), start, 1 / rate, length)
    law = {"alpha": 0.5, "beta": 0.75, "delta": 0.75, "gamma": 0.5}
    details = {"source": "generated prey and hunters", "law": law}
    return _task("lotka_volterra", path, parts, seed, rate, details)


def open_environments(*, count: int = 36, length: int = 20, rate: int = 2, seed: int = 0) -> Task:
    """Prey and hunters under nine laws, ``ENVIRONMENTS``; the third channel is the number of the law, from 0.

    The setting of Yin, Ayed, de Bézenac, Baskiotis, Gallinari 2021, "LEADS: learning dynamical systems that
    generalize across environments", arXiv 2106.04546, with its laws, starts in [1, 3]^2 and sampling as we
    recall them; they could not be read again. Trajectories take turns through the laws, so that
    ``count`` = 36 gives each of them four. Made for the model ``environments``, which is told the number.

    Args:
        count: train trajectories; 45 validate, and 90 test.
        length: steps of a trajectory.
        rate: states a unit of time.
        seed: of the starting points.

    Raises:
        ValueError: a count, a length or a rate below one.
    """
    parts = (_parts("environments", count, length, rate)[0], 45, 90)
    numbers = np.random.default_rng(seed)
    start = numbers.uniform(1, 3, (sum(parts), 2))
    law = np.concatenate([np.arange(part) % len(ENVIRONMENTS) for part in parts])
    beta, delta = np.array(ENVIRONMENTS)[law].T
    path = integrate(lotka_volterra(0.5, beta, delta, 0.5), start, 1 / rate, length)
    told = np.broadcast_to(law[:, None, None], (*path.shape[:2], 1))
    details = {"source": "generated prey and hunters, nine laws", "laws": ENVIRONMENTS}
    return _task("environments", np.concatenate([path, told], 2), parts, seed, rate, details, targets=2)


def _parts(name: str, count: int, length: int, rate: int) -> tuple[int, int, int]:
    if min(count, length, rate) < 1:
        raise ValueError(
            f"{name}: trajectories, their steps and states a unit of time are 1 or more; got count={count}, "
            f"length={length} and rate={rate}. Correct the smallest."
        )
    held = max(1, count // 5)
    return count, held, held


def _task(
    name: str,
    path: np.ndarray,
    parts: tuple[int, int, int],
    seed: int,
    rate: int,
    details: dict[str, Any],
    targets: int | None = None,
) -> Task:
    """The regression from each state to the next; no row holds more than one trajectory."""
    inputs, after = path[:, :-1], path[:, 1:, :targets]
    cuts = np.split(np.arange(len(path)), np.cumsum(parts)[:-1])
    chosen = (cuts[0], cuts[1], cuts[2])
    details = {**details, "seed": seed, "states a unit of time": rate}
    task = aligned_task(inputs, after, None, chosen, name, name, details)
    change = after - inputs[..., : after.shape[2]]
    location, scale = change[cuts[0]].mean((0, 1)), change[cuts[0]].std((0, 1))

    def naive() -> dict[str, dict[str, float]]:
        """The state as it was, and moved on as it last moved."""
        test = change[cuts[2]]
        moved = np.concatenate([np.zeros_like(test[:, :1]), test[:, :-1]], 1)
        return {"persistence": scores(test / scale), "as the last change": scores((test - moved) / scale)}

    facts = {
        **task.facts,
        "target_location": location.tolist(),
        "target_scale": scale.tolist(),
        "increments": True,
    }
    return task._replace(facts=facts, naive=naive)
