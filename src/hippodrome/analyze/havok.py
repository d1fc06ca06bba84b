"""Linear models of trajectories: DMD, DMD of delays, and HAVOK, by singular values in float64."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class LinearLaw(NamedTuple):
    """x_{t+1} = A x_t on states, or on vectors of delays (newest first), of which ``states`` are the newest.

    ``A`` (n, n) is of rank r at most; ``eigenvalues`` (r,) are those of a step that are not zero, largest
    first, ``modes`` (n, r) their vectors.
    """

    A: np.ndarray
    eigenvalues: np.ndarray
    modes: np.ndarray
    states: int

    def roll_out(self, past: np.ndarray, steps: int) -> np.ndarray:
        """The ``steps`` states (..., steps, c) that follow a past (..., t, c), t at least the delays.

        Raises:
            ValueError: a past of other channels or shorter than the delays.
        """
        c = self.states
        delays = self.A.shape[0] // c
        if past.shape[-1] != c or past.shape[-2] < delays:
            raise ValueError(
                f"this model goes on from {delays} states of {c} numbers at least; got {past.shape[-2:]}. "
                f"Give as many."
            )
        newest = past[..., past.shape[-2] - delays :, :][..., ::-1, :]
        v = newest.reshape(*past.shape[:-2], delays * c)
        found = []
        for _ in range(steps):
            v = v @ self.A.T
            found.append(v[..., :c])
        return np.stack(found, -2)


class Havok(NamedTuple):
    """dv/dt = A v + B v_r on the first r - 1 delay coordinates of one measurement; the last one forces.

    ``modes`` (delays, r) turns a window of delays, oldest first, into coordinates (by ``scale``), ``v``
    (t, r) are the coordinates of the series, ``singular`` (r,) the singular values. ``energy`` is the share
    of the windows' squares that r modes hold, ``r2`` (r - 1,) that of the derivatives' variance explained.
    """

    A: np.ndarray
    B: np.ndarray
    modes: np.ndarray
    singular: np.ndarray
    v: np.ndarray
    energy: float
    r2: np.ndarray


def delayed(states: np.ndarray, delays: int) -> np.ndarray:
    """Windows (..., t - delays + 1, delays * c) of trajectories (..., t, c), newest state first.

    Each trajectory gives windows of its own: none crosses its border.

    Raises:
        ValueError: fewer than one delay, or more of them than states.
    """
    t = states.shape[-2]
    if not 1 <= delays <= t:
        raise ValueError(
            f"a window of delays is one state or more and lies inside the trajectory of {t}; got {delays}. "
            f"Take fewer."
        )
    parts = [states[..., delays - 1 - k : t - k, :] for k in range(delays)]
    return np.concatenate(parts, -1)


def dmd(
    trajectories: np.ndarray | Sequence[np.ndarray], rank: int | None = None, delays: int = 1
) -> LinearLaw:
    """A = X' X^+ by singular values cut off at ``rank``: the linear map of a state to the next one.

    Schmid 2010, "Dynamic mode decomposition of numerical and experimental data", with all of A kept; of
    windows of ``delays`` states (Arbabi, Mezić 2017, "Ergodic theory, dynamic mode decomposition, and
    computation of spectral properties of the Koopman operator", arXiv 1611.06664) where that is above one.

    Args:
        trajectories: (t, c), several (n, t, c), or a list of some of any length.
        rank: singular values kept; None keeps those above 1e-10 of the largest.
        delays: states of a window.

    Raises:
        ValueError: no pair of windows, a rank out of range, or numbers that are not finite.
    """
    if isinstance(trajectories, np.ndarray):
        if trajectories.ndim < 2:
            raise ValueError(
                f"a trajectory is a table of states (t, c); got shape {trajectories.shape}. Give one number "
                f"a step as (t, 1)."
            )
        trajectories = list(trajectories.reshape(-1, *trajectories.shape[-2:]))
    paths = [_finite(path) for path in trajectories]
    longest = max(len(path) for path in paths)
    if longest < delays + 1:
        raise ValueError(
            f"a pair of windows of {delays} takes {delays + 1} states of a trajectory; got {longest}. Take "
            f"fewer delays."
        )
    pairs = [delayed(path, delays) for path in paths if len(path) > delays]
    before = np.concatenate([windows[:-1] for windows in pairs])
    after = np.concatenate([windows[1:] for windows in pairs])
    left, size, right = np.linalg.svd(before, full_matrices=False)
    r = int((size > 1e-10 * size[0]).sum()) if rank is None else rank
    if not 1 <= r <= len(size):
        raise ValueError(
            f"a rank is from 1 to {len(size)}, the singular values there are; got {r}. Take one of these."
        )
    left, size, right = left[:, :r], size[:r], right[:r]
    # In rows: after = before A^T, so A^T = right^T size^-1 left^T after.
    back = (after.T @ left) / size
    values, vectors = np.linalg.eig(right @ back)
    order = np.argsort(-np.abs(values), kind="stable")
    modes = (back @ vectors)[:, order]
    return LinearLaw(back @ right, values[order], modes, paths[0].shape[-1])


def havok(series: np.ndarray, dt: float, delays: int = 100, rank: int = 15) -> Havok:
    """Brunton, Brunton, Proctor, Kaiser, Kutz 2017, "Chaos as an intermittently forced linear system", arXiv
    1608.05306, equations 3 to 6: singular vectors of the Hankel matrix of one measurement, then the first
    r - 1 of them are a linear system that the last one forces.

    Derivatives are central differences of fourth order; the regression is plain least squares. Coordinates
    are singular vectors, of norm one over the whole series. The first mode has a positive sum and each other
    the sign that makes A above its diagonal negative, whatever signs the singular vectors came with.

    Args:
        series: one measurement (t,), in float64.
        dt: time from one value to the next.
        delays: values of a window, rows of the Hankel matrix.
        rank: r, of which the last forces.

    Raises:
        ValueError: too few values for the windows, a rank below two or above what there is, or numbers that
            are not finite.
    """
    y = _finite(series)
    windows = len(y) - delays + 1
    if y.ndim != 1 or delays < 2 or not 2 <= rank <= min(delays, windows - 4):
        raise ValueError(
            f"HAVOK reads one series whose windows are at least as many as the rank and four more, and a "
            f"rank from 2 to the delays; got a series of shape {y.shape}, {delays} delays and rank {rank}. "
            f"Take fewer."
        )
    hankel = np.lib.stride_tricks.sliding_window_view(y, delays)  # windows x delays, oldest first
    # Not by the eigenvalues of the products of windows: coordinates beyond the eighth or so, of windows much
    # shorter than the motion, are smaller than the root of what float64 tells apart.
    v, singular, right = np.linalg.svd(hankel, full_matrices=False)
    held = int((singular > 1e-13 * singular[0]).sum())
    if held < rank:
        raise ValueError(
            f"the windows of this series hold {held} coordinates that are not zero, fewer than the rank "
            f"{rank}. Take a lower one."
        )
    energy = float(np.square(singular[:rank]).sum() / np.square(singular).sum())
    v, singular, modes = v[:, :rank], singular[:rank], right[:rank].T
    rate = (v[:-4] - 8 * v[1:-3] + 8 * v[3:-1] - v[4:]) / (12 * dt)
    middle = v[2:-2]
    found = np.linalg.lstsq(middle, rate[:, :-1], rcond=None)[0].T
    signs = np.ones(rank)
    signs[0] = np.sign(modes[:, 0].sum()) or 1.0
    for i in range(rank - 1):
        signs[i + 1] = -signs[i] * (np.sign(found[i, i + 1]) or 1.0)
    found = signs[:-1, None] * found * signs
    rest = np.square(rate[:, :-1] - middle @ (signs[:-1, None] * found * signs).T).mean(0)
    return Havok(
        found[:, :-1],
        found[:, -1:],
        modes * signs,
        singular,
        v * signs,
        energy,
        1 - rest / rate[:, :-1].var(0),
    )


def _finite(values: np.ndarray) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError("a linear law is fitted to finite numbers; got NaN or infinity. Fill or cut them.")
    return x
