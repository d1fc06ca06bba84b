"""A simulated walker with inertial sensors: noisy readings at 50 Hz in, velocity or position at 5 Hz out."""

from typing import NamedTuple

import numpy as np

from hippodrome.data._aligned import aligned_task, scores
from hippodrome.data.base import Task

RATE, EVERY = 50, 10
"""Readings a second; readings a target."""
TARGETS = {"velocity": ("east m/s", "north m/s"), "position": ("east m", "north m")}


class Walk(NamedTuple):
    """Paths of n walkers at t instants: what the sensors read, and the truth, metres and seconds."""

    readings: np.ndarray
    velocity: np.ndarray
    position: np.ndarray


def walks(n: int, t: int, noise: float, numbers: np.random.Generator) -> Walk:
    """n walks of t readings from rest, heading east.

    Speed and rate of turn are processes of their own: noise through two low-pass filters of 1 s (speed) and
    0.7 s (turn), speed around 1.2 m/s and never below zero, after a start of 1 s. Walking shakes the body up
    and down by an acceleration of twice the speed in size, 0.8 + 0.6 times the speed times a second. The
    sensors read acceleration ahead and to the left (what turning takes), up and down, and the rate of turn.
    Each has white noise of 0.5 m/s^2 and 0.05 rad/s and, for each walk anew, an offset of 0.1 m/s^2 and
    0.02 rad/s (deviations, times ``noise``), so that what is integrated drifts.
    """
    dt = 1 / RATE
    time = np.arange(1, t + 1) * dt
    speed = np.maximum(1.2 + 0.6 * _smooth(numbers.standard_normal((n, t)), 1.0), 0.0) * -np.expm1(-time)
    turn = 0.6 * _smooth(numbers.standard_normal((n, t)), 0.7)
    heading = np.cumsum(turn, 1) * dt
    velocity = speed[..., None] * np.stack([np.cos(heading), np.sin(heading)], -1)
    ahead = np.diff(speed, axis=1, prepend=0.0) / dt
    phase = 2 * np.pi * np.cumsum(0.8 + 0.6 * speed, 1) * dt
    truth = np.stack([ahead, speed * turn, 2 * speed * np.sin(phase), turn], -1)
    white, offset = np.array([0.5, 0.5, 0.5, 0.05]), np.array([0.1, 0.1, 0.1, 0.02])
    errors = white * numbers.standard_normal(truth.shape) + offset * numbers.standard_normal((n, 1, 4))
    return Walk(truth + noise * errors, velocity, np.cumsum(velocity, 1) * dt)


def dead_reckoning(readings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Velocity and position (n, t, 2) by integrating what the sensors read ahead and of the turn."""
    dt = 1 / RATE
    speed, heading = np.cumsum(readings[..., 0], 1) * dt, np.cumsum(readings[..., 3], 1) * dt
    velocity = speed[..., None] * np.stack([np.cos(heading), np.sin(heading)], -1)
    return velocity, np.cumsum(velocity, 1) * dt


def open_inertial(
    *,
    length: int = 500,
    count: int = 400,
    noise: float = 1.0,
    targets: list[str] | None = None,
    deltas: bool = False,
    seed: int = 0,
) -> Task:
    """Tell a walker's velocity, or position, from noisy inertial sensors: a sequence of readings to a slower
    one of a physical quantity.

    The task of sensors to physical quantities of Bhirangi et al. 2024 (arXiv 2402.10211), with their rates of
    50 and 5 Hz, on a simulation (``walks``) in place of their recordings. Targets stand at the last of each
    ten readings; ``naive()["dead reckoning"]`` integrates the readings.

    Args:
        length: readings of a walk.
        count: train walks; a fifth as many validate, and as many test.
        noise: size of the sensors' errors, as a multiple of those in ``walks``.
        targets: ["velocity"], ["position"] or both; None takes the velocity.
        deltas: whether each reading's change since the one before is read beside it.
        seed: of walks and noise.

    Raises:
        ValueError: no such target, fewer readings than one target takes, or no walk.
    """
    names = ["velocity"] if targets is None else list(targets)
    if not names or not set(names) <= set(TARGETS):
        raise ValueError(
            f"the targets of 'inertial' are {' and '.join(map(repr, TARGETS))}, one or both; got {names}"
        )
    if length < EVERY or count < 1 or noise < 0:
        raise ValueError(
            f"'inertial' has walks of {EVERY} readings or more, one at least, and a noise of 0 or more; got "
            f"length={length}, count={count}, noise={noise:g}. Correct them"
        )
    held = max(1, count // 5)
    total = count + 2 * held
    walk = walks(total, length, noise, np.random.default_rng(seed))
    asked = np.arange(length) % EVERY == EVERY - 1
    wanted = np.concatenate([walk.velocity if name == "velocity" else walk.position for name in names], -1)
    aligned = np.where(asked[:, None], wanted, np.nan)
    rows = np.arange(total)
    parts = (rows[:count], rows[count : count + held], rows[count + held :])
    details = {
        "source": "a simulated walker",
        "targets": [unit for name in names for unit in TARGETS[name]],
        "readings a second": RATE,
        "targets a second": RATE // EVERY,
        "seed": seed,
    }
    readings = walk.readings.astype(np.float32)
    task = aligned_task(readings, aligned, None, parts, "inertial", "inertial", details, deltas=deltas)

    def naive() -> dict[str, dict[str, float]]:
        """The train mean, and what integrating the readings tells."""
        velocity, position = dead_reckoning(walk.readings[parts[2]])
        told = np.concatenate([velocity if name == "velocity" else position for name in names], -1)
        error = (told - aligned[parts[2]]) / np.array(task.facts["target_scale"])
        return {**task.naive(), "dead reckoning": scores(error)}

    return task._replace(naive=naive)


def _smooth(noise: np.ndarray, seconds: float) -> np.ndarray:
    """White noise (n, t) through two low-pass filters in a row, at rest before the first, of about unit size.

    x_k = r x_{k-1} + (1 - r) u_k with r = exp(-1 / (50 seconds)), twice; the deviation of what comes out long
    after the start is ((1 - r) (1 + r^2) / (1 + r)^3)^{1/2} of that of the noise, by which it is divided.
    """
    r = float(np.exp(-1 / (RATE * seconds)))
    for _ in range(2):
        out, last = np.empty_like(noise), np.zeros(len(noise))
        for k in range(noise.shape[1]):
            last = r * last + (1 - r) * noise[:, k]
            out[:, k] = last
        noise = out
    return noise / ((1 - r) * (1 + r**2) / (1 + r) ** 3) ** 0.5
