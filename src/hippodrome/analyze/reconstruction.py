"""What a HiPPO state still knows of the past: the signal rebuilt from it, and how far off that is."""

import copy
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.inits import hippo
from hippodrome.mixers.hippo_legs import HippoLegS
from hippodrome.mixers.lmu import LMU
from hippodrome.ops.discretize import dense_zoh, matrix_exp

WINDOWED = ("legt", "lmu", "fout")
"""Measures whose past ends after one window."""


class Rebuilt(NamedTuple):
    """The past as the state tells it, oldest first.

    ``age``: how many samples before the end each point lies; the middle of the last sample has age 1/2.
    ``error``: root mean square error over the root mean square of ``truth``.
    ``best``: that of the least-squares fit of ``truth`` by the same functions: no state does better.
    """

    age: Float[Tensor, "points"]
    truth: Float[Tensor, "points"]
    rebuilt: Float[Tensor, "points"]
    error: float
    best: float


def memorize(
    measure: str, n: int, signal: Float[Tensor, "t"], window: float | int | None = None
) -> Float[Tensor, "n"]:
    """The state of a HiPPO system after a signal held between its samples, in float64, with no other error.

    "legs" is the scaled memory x' = (A x + B u) / t, whose window is all of the past: over sample k its state
    is multiplied by exp(A log((k+1)/k)), and after the first it is (u, 0, ..., 0). The others run as they
    stand with a window (for "lagt" a unit of time) of ``window`` samples.

    Raises:
        ValueError: an unknown measure, no signal, or a window that is missing or not positive.
    """
    hippo.known(measure)
    u = _series(signal)
    A, B = hippo.MEASURES[measure](n)
    if measure == "legs":
        return _scaled(A, B, u)
    if window is None or not 0 < window < math.inf:
        raise ValueError(f"The measure {measure!r} needs a positive window in samples; got {window}.")
    step, gain = dense_zoh(A, B[:, None], torch.tensor(1 / window, dtype=torch.float64))
    x = torch.zeros(n, dtype=torch.float64)
    for value in u:
        x = step @ x + gain[:, 0] * value
    return x


def _scaled(A: Tensor, B: Tensor, u: Tensor, block: int = 256) -> Tensor:
    """exp(s A) of each step, in blocks that bound the memory; the input's part is (exp(s A) - 1) A^{-1} B."""
    x = torch.zeros_like(B)
    x[0] = u[0]
    # Where a constant input of -1 leads: e_0 of LegS, negative.
    held = torch.linalg.solve(A, B[:, None])[:, 0]
    times = torch.arange(1, len(u), dtype=torch.float64)
    for part, values in zip(times.split(block), u[1:].split(block), strict=True):
        factors = matrix_exp(torch.log1p(1 / part)[:, None, None] * A)
        for factor, value in zip(factors, values, strict=True):
            x = factor @ (x + value * held) - value * held
    return x


def rebuild(
    measure: str, coefficients: Float[Tensor, "*rows n"], age: Float[Tensor, "points"]
) -> Float[Tensor, "*rows points"]:
    """The past that a state tells, at ages in parts of the window (see ``inits.hippo.basis``)."""
    functions = hippo.basis(measure, coefficients.shape[-1], age)
    return coefficients.double() @ functions.T


def compare(
    measure: str,
    coefficients: Float[Tensor, "n"],
    signal: Float[Tensor, "t"],
    window: float | int | None = None,
) -> Rebuilt:
    """Hold the past that a state tells against the signal it was fed, in the middle of each sample.

    Args:
        coefficients: the state after the last sample, of ``memorize`` or of a mixer.
        signal: what it was fed.
        window: as for ``memorize``; older samples are left out, but for "lagt", whose past only fades, three
            windows are shown.

    Raises:
        ValueError: as ``memorize``.
    """
    hippo.known(measure)
    u = _series(signal)
    if measure == "legs":
        window = len(u)
    if window is None or not 0 < window < math.inf:
        raise ValueError(f"The measure {measure!r} needs a positive window in samples; got {window}.")
    shown = min(len(u), math.floor(window if measure in (*WINDOWED, "legs") else 3 * window))
    age = torch.arange(shown, 0, -1, dtype=torch.float64) - 0.5
    truth = u[-shown:]
    rebuilt = rebuild(measure, coefficients, age / window)
    functions = hippo.basis(measure, coefficients.shape[-1], age / window)
    fit = functions @ torch.linalg.lstsq(functions, truth[:, None], driver="gelsd").solution[:, 0]
    size = truth.square().mean().sqrt().clamp_min(1e-300)
    error, best = ((other - truth).square().mean().sqrt() / size for other in (rebuilt, fit))
    return Rebuilt(age, truth, rebuilt, float(error), float(best))


@torch.no_grad()
def of_mixer(mixer: HippoLegS | LMU, signal: Float[Tensor, "t"]) -> Rebuilt:
    """What the first memory of a mixer knows of a signal written into it, in float64.

    The tokens are chosen so that the mixer's own map writes the signal.
    """
    twin = copy.deepcopy(mixer).cpu().double().eval()
    u = _series(signal)
    row = twin.input.weight[0]
    x = u[:, None] * row / row.square().sum()
    _, state = twin(x[None])
    if isinstance(twin, HippoLegS):
        return compare("legs", state.c[0, 0], u)
    window = 1 / float(twin.memory.B(torch.float64)[0])  # B begins with 1 / theta
    return compare("lmu", state.m[0, 0], u, window)


def band_limited(length: int, cycles: float | int, seed: int = 0) -> Float[Tensor, "length"]:
    """Noise of unit power with nothing above ``cycles`` periods over its length: a signal to remember."""
    g = torch.Generator().manual_seed(seed)
    most = max(1, math.floor(cycles))
    turns = 2 * torch.pi * torch.arange(length, dtype=torch.float64) / length
    k = torch.arange(1, most + 1, dtype=torch.float64)
    weights = torch.randn(2, most, generator=g, dtype=torch.float64)
    angle = turns[:, None] * k
    signal = torch.cos(angle) @ weights[0] + torch.sin(angle) @ weights[1]
    return signal / signal.square().mean().sqrt()


def _series(signal: Tensor) -> Tensor:
    if signal.dim() != 1 or len(signal) == 0:
        raise ValueError(
            "A signal to remember is one series of at least one sample, shape (t); got "
            f"{tuple(signal.shape)}."
        )
    if not bool(torch.isfinite(signal).all()):
        raise ValueError("A signal to remember must be finite; it holds a NaN or an infinity. Fill it first.")
    return signal.detach().cpu().double()
