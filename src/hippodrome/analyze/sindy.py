"""SINDy: the sparse polynomial law of motion behind trajectories, found by least squares with a threshold."""

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np

_REPEATS = 20
"""At most so often are small coefficients taken out and the others fitted again."""


class Law(NamedTuple):
    """dx/dt = coefficients times the terms of the library.

    ``powers`` (terms, c) holds the exponent of each state in each term, ``coefficients`` (c, terms) its
    factor in each derivative, zero where the term takes no part. ``r2`` (c,) is the share of the derivatives'
    variance that the law explains.
    """

    powers: np.ndarray
    coefficients: np.ndarray
    r2: np.ndarray

    def rates(self, states: np.ndarray) -> np.ndarray:
        """The derivatives (..., c) at states (..., c)."""
        return library(states, self.powers) @ self.coefficients.T

    def equations(self, names: Sequence[str], digits: int = 4) -> list[str]:
        """One equation a state in words of its name: dx/dt = -10 x + 10 y."""
        terms = [_term(power, names) for power in self.powers]
        return [
            f"d{name}/dt = {_sum(row, terms, digits)}"
            for name, row in zip(names, self.coefficients, strict=True)
        ]


def powers(channels: int, degree: int) -> np.ndarray:
    """The exponents (terms, c) of all products of up to ``degree`` states, the constant first."""
    found = []
    for order in range(degree + 1):
        for chosen in combinations_with_replacement(range(channels), order):
            found.append(np.bincount(np.array(chosen, dtype=np.int64), minlength=channels))
    return np.array(found)


def library(states: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """The value (..., terms) of each term at states (..., c)."""
    terms = [np.prod(states**power, -1) for power in exponents]
    return np.stack(terms, -1)


def derivatives(states: np.ndarray, dt: float) -> np.ndarray:
    """The derivatives (..., t - 4, c) of the middle of trajectories (..., t, c), of fourth order in dt.

    (x_{i-2} - 8 x_{i-1} + 8 x_{i+1} - x_{i+2}) / 12 dt. Noise grows by 1 / dt: smooth noisy states first.

    Raises:
        ValueError: fewer than five states.
    """
    if states.shape[-2] < 5:
        raise ValueError(
            f"a derivative is taken over five states; got a trajectory of {states.shape[-2]}. Give a longer "
            f"one."
        )
    x = np.asarray(states, dtype=np.float64)
    at = [x[..., k : x.shape[-2] - 4 + k, :] for k in range(5)]
    return (at[0] - 8 * at[1] + 8 * at[3] - at[4]) / (12 * dt)


def identify(states: np.ndarray, rates: np.ndarray, degree: int = 2, threshold: float = 0.1) -> Law:
    """The law by least squares, thresholded in turn: fit, drop coefficients below ``threshold``, fit again.

    Brunton, Proctor, Kutz 2016, "Discovering governing equations from data by sparse identification of
    nonlinear dynamical systems", arXiv 1509.03580, equations 3 to 6 and algorithm 1. Columns of the library
    are scaled to one another before each fit, for its conditioning alone: thresholds are of coefficients in
    the units of the data.

    Args:
        states: (n, c), in float64.
        rates: their derivatives by time (n, c).
        degree: the highest power, 0 for a constant law.
        threshold: the size below which a coefficient is taken for nothing.

    Raises:
        ValueError: a negative degree or threshold, states and rates that do not fit, numbers that are not
            finite, or fewer states than terms.
    """
    x, dx = np.asarray(states, dtype=np.float64), np.asarray(rates, dtype=np.float64)
    if x.ndim != 2 or x.shape != dx.shape:
        raise ValueError(
            f"SINDy takes states (n, c) and as many derivatives; got shapes {x.shape} and {dx.shape}. Cut "
            f"them to the same steps."
        )
    if degree < 0 or not threshold >= 0:
        raise ValueError(
            f"degree and threshold are 0 or more; got {degree} and {threshold:g}. Take 2 and 0.1, say."
        )
    if not (np.isfinite(x).all() and np.isfinite(dx).all()):
        raise ValueError("SINDy takes finite states and derivatives; got NaN or infinity. Leave them out.")
    exponents = powers(x.shape[1], degree)
    if len(x) < len(exponents):
        raise ValueError(
            f"{len(exponents)} terms of degree {degree} take as many states at least; got {len(x)}. Give "
            f"more, or a lower degree."
        )
    terms = library(x, exponents)
    size = np.sqrt(np.square(terms).mean(0))
    size = np.where(size > 0, size, 1.0)
    terms = terms / size
    coefficients = np.zeros((x.shape[1], len(exponents)))
    for row, rate in enumerate(dx.T):
        kept = np.ones(len(exponents), dtype=bool)
        for _ in range(_REPEATS):
            found = np.zeros(len(exponents))
            found[kept] = np.linalg.lstsq(terms[:, kept], rate, rcond=None)[0] / size[kept]
            still = kept & (np.abs(found) >= threshold)
            coefficients[row] = np.where(still, found, 0.0)
            if (still == kept).all() or not still.any():
                break
            kept = still
    law = Law(exponents, coefficients, np.zeros(x.shape[1]))
    rest, spread = np.square(dx - law.rates(x)).mean(0), dx.var(0)
    return law._replace(r2=1 - rest / np.where(spread > 0, spread, 1.0))


def _term(power: np.ndarray, names: Sequence[str]) -> str:
    parts = [name if n == 1 else f"{name}^{n}" for name, n in zip(names, power, strict=True) if n]
    return " ".join(parts)


def _sum(values: np.ndarray, terms: Sequence[str], digits: int) -> str:
    """The terms that take part, with their factors: -10 x + 10 y, or 0 where none does."""
    text = ""
    for value, term in zip(values, terms, strict=True):
        if value:
            sign = ("-" if value < 0 else "") if not text else " - " if value < 0 else " + "
            factor = f"{abs(value):.{digits}g}"
            text += sign + (term if factor == "1" and term else f"{factor} {term}".strip())
    return text or "0"
