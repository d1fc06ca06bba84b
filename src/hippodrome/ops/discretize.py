"""Discretizations of a diagonal system x' = A x + B u, held as real pairs: what one step does.

x_k = exp(log_a) x_{k-1} + gain B u_k. The factor is handed on as its logarithm, since powers of it follow.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.ops import _pairs

Poles = Float[Tensor, "*modes 2"]


class Discrete(NamedTuple):
    """One step of a diagonal system: the logarithm of its factor, and what B is multiplied by."""

    log_a: Poles
    gain: Poles


def zoh(A: Float[Tensor, "*modes 2"], step: Float[Tensor, "*sizes"]) -> Discrete:
    """Zero-order hold, exact for an input constant over the step: exp(dt A) and (exp(dt A) - 1) / A.

    (Gu, Gupta, Goel, Ré 2022, arXiv 2206.11893, section 2.) Where dt A is small the quotient is its power
    series, so neither it nor its gradient loses digits, and it is dt where A = 0.

    Args:
        A: poles, (..., 2).
        step: dt of each, positive, broadcast against A without its last axis.
    """
    size = step[..., None]
    z = size * A
    return Discrete(z, size * _mean_of_exp(z))


def bilinear(A: Float[Tensor, "*modes 2"], step: Float[Tensor, "*sizes"]) -> Discrete:
    """The bilinear (Tustin) rule: (1 + dt A / 2) / (1 - dt A / 2) and dt / (1 - dt A / 2).

    (Gu, Goel, Ré 2021, arXiv 2111.00396, equation 3.) Arguments as for ``zoh``.
    """
    size = step[..., None]
    z = size * A
    x, y = z[..., 0], z[..., 1]
    below = (1 - 0.5 * x).square() + (0.5 * y).square()  # |1 - z/2|^2
    # log|(1 + z/2) / (1 - z/2)|: 2x / below is one less than the squared quotient.
    excess = 2 * x / below
    near = excess > -0.5
    above = (1 + 0.5 * x).square() + (0.5 * y).square()
    floor = torch.finfo(z.dtype).tiny
    far = torch.log(torch.where(near, 1.0, above.clamp_min(floor) / below))
    decay = 0.5 * torch.where(near, torch.log1p(torch.where(near, excess, 0.0)), far)
    angle = torch.atan2(y, 1 - 0.25 * (x.square() + y.square()))
    gain = size * torch.stack([1 - 0.5 * x, 0.5 * y], -1) / below[..., None]
    return Discrete(torch.stack([decay, angle], -1), gain)


def impulse(A: Float[Tensor, "*modes 2"], step: Float[Tensor, "*sizes"]) -> Discrete:
    """Inputs as impulses at the sample times: exp(dt A) and 1. The form of systems born discrete."""
    z = step[..., None] * A
    return Discrete(z, torch.stack([torch.ones_like(z[..., 0]), torch.zeros_like(z[..., 0])], -1))


def _mean_of_exp(z: Tensor) -> Tensor:
    """(exp(z) - 1) / z, the mean of exp over the segment from 0 to z; 1 at z = 0."""
    square = z.square().sum(-1, keepdim=True)
    small = square < 0.01
    # Ten terms leave less than 1e-17 at |z| = 0.1.
    near = torch.where(small, z, 0.0)
    one = torch.tensor([1.0, 0.0], dtype=z.dtype, device=z.device)
    series = one.expand_as(z)
    for k in range(10, 1, -1):
        series = one + _pairs.times(near, series) / k
    far = torch.where(small, 1.0, z)
    return torch.where(small, series, _pairs.over(_pairs.expm1(far), far))
