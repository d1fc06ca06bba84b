"""Discretizations of x' = A x + B u: what one step does, for a diagonal A held as real pairs and a dense one.

Diagonal: x_k = exp(log_a) x_{k-1} + gain B u_k; the factor is handed on as its logarithm, since powers of it
follow. Dense: x_k = Abar x_{k-1} + Bbar u_k. Step sizes broadcast, so each token may have its own.
"""

import math
from collections.abc import Callable
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

    (Gu, Goel, Ré 2021, arXiv 2111.00396, equation 3.) Arguments as for ``zoh``. It keeps stable what is.
    """
    return _gbt(A, step, 0.5)


def forward_euler(A: Float[Tensor, "*modes 2"], step: Float[Tensor, "*sizes"]) -> Discrete:
    """Forward Euler: 1 + dt A and dt. Arguments as for ``zoh``.

    The factor exceeds 1 in modulus, and the run grows without end, where dt |A|^2 > -2 Re A. Where it is 0
    its logarithm is held at half that of the smallest normal number, so that it stays finite.
    """
    return _gbt(A, step, 0.0)


def backward_euler(A: Float[Tensor, "*modes 2"], step: Float[Tensor, "*sizes"]) -> Discrete:
    """Backward Euler: 1 / (1 - dt A) and dt / (1 - dt A). Arguments as for ``zoh``.

    It keeps stable what is.
    """
    return _gbt(A, step, 1.0)


def gbt(alpha: float) -> Callable[[Tensor, Tensor], Discrete]:
    """The generalized bilinear rule: (1 + (1 - alpha) dt A) / (1 - alpha dt A) and dt / (1 - alpha dt A).

    (Gu, Johnson, Goel, Saab, Dao, Rudra, Ré 2021, arXiv 2110.13985, section 2.) 0 is forward Euler, 1/2
    bilinear, 1 backward Euler; stable systems stay stable at any step from 1/2 up. What comes back takes A
    and a step size as ``zoh`` does.

    Raises:
        ValueError: alpha is not between 0 and 1.
    """
    _check_alpha(alpha)
    return lambda A, step: _gbt(A, step, alpha)


def impulse(A: Float[Tensor, "*modes 2"], step: Float[Tensor, "*sizes"]) -> Discrete:
    """Inputs as impulses at the sample times: exp(dt A) and 1. The form of systems born discrete."""
    z = step[..., None] * A
    return Discrete(z, torch.stack([torch.ones_like(z[..., 0]), torch.zeros_like(z[..., 0])], -1))


DIAGONAL: dict[str, Callable[[Tensor, Tensor], Discrete]] = {
    "zoh": zoh,
    "bilinear": bilinear,
    "forward_euler": forward_euler,
    "backward_euler": backward_euler,
    "impulse": impulse,
}
"""The rules for diagonal systems by name: (A, step) to ``Discrete``."""


def dense_gbt(
    A: Float[Tensor, "*systems n n"],
    B: Float[Tensor, "*inputs m"],
    step: Float[Tensor, "*sizes"],
    alpha: float,
) -> tuple[Float[Tensor, "*every n n"], Float[Tensor, "*each n m"]]:
    """The generalized bilinear rule: (1 - alpha dt A)^-1 (1 + (1 - alpha) dt A) and (1 - alpha dt A)^-1 dt B.

    (Gu, Johnson, Goel, Saab, Dao, Rudra, Ré 2021, arXiv 2110.13985, section 2.)

    Args:
        A: (..., n, n).
        B: (..., n, m), a column for each input.
        step: dt of each, positive, broadcast against what stands before the matrices.
        alpha: 0 is forward Euler, 1/2 bilinear, 1 backward Euler.

    Returns:
        Abar (..., n, n) and Bbar (..., n, m).

    Raises:
        ValueError: alpha is not between 0 and 1, or the matrices do not fit.
    """
    _check_alpha(alpha)
    _check_dense(A, B)
    z = step[..., None, None] * A
    one = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    ahead, inputs = one + (1 - alpha) * z, step[..., None, None] * B
    if alpha == 0:
        return ahead, inputs
    below = one - alpha * z
    return torch.linalg.solve(below, ahead), torch.linalg.solve(below, inputs)


def dense_bilinear(
    A: Float[Tensor, "*systems n n"], B: Float[Tensor, "*inputs m"], step: Float[Tensor, "*sizes"]
) -> tuple[Tensor, Tensor]:
    """``dense_gbt`` with alpha = 1/2."""
    return dense_gbt(A, B, step, 0.5)


def dense_forward_euler(
    A: Float[Tensor, "*systems n n"], B: Float[Tensor, "*inputs m"], step: Float[Tensor, "*sizes"]
) -> tuple[Tensor, Tensor]:
    """``dense_gbt`` with alpha = 0."""
    return dense_gbt(A, B, step, 0.0)


def dense_backward_euler(
    A: Float[Tensor, "*systems n n"], B: Float[Tensor, "*inputs m"], step: Float[Tensor, "*sizes"]
) -> tuple[Tensor, Tensor]:
    """``dense_gbt`` with alpha = 1."""
    return dense_gbt(A, B, step, 1.0)


def dense_zoh(
    A: Float[Tensor, "*systems n n"], B: Float[Tensor, "*inputs m"], step: Float[Tensor, "*sizes"]
) -> tuple[Float[Tensor, "*every n n"], Float[Tensor, "*each n m"]]:
    """Zero-order hold: exp(dt A), and B times the integral of exp(s A) over the step.

    One exponential of dt [[A, B], [0, 0]] holds both (Van Loan 1978, "Computing integrals involving the
    matrix exponential"), so a singular A needs no care. With more inputs than states 1 stands for B there,
    so that the exponential is of 2 n rows at most. Arguments and results as for ``dense_gbt``.
    """
    _check_dense(A, B)
    n = A.shape[-1]
    many = B.shape[-1] > n
    inputs = torch.eye(n, dtype=A.dtype, device=A.device) if many else B
    m = inputs.shape[-1]
    batch = torch.broadcast_shapes(A.shape[:-2], inputs.shape[:-2], step.shape)
    above = torch.cat([A.expand(*batch, n, n), inputs.expand(*batch, n, m)], -1) * step[..., None, None]
    whole = matrix_exp(torch.cat([above, above.new_zeros(*batch, m, n + m)], -2))
    Abar, Bbar = whole[..., :n, :n], whole[..., :n, n:]
    return Abar, Bbar @ B if many else Bbar


DENSE: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "zoh": dense_zoh,
    "bilinear": dense_bilinear,
    "forward_euler": dense_forward_euler,
    "backward_euler": dense_backward_euler,
}
"""The rules for dense systems by name: (A, B, step) to (Abar, Bbar)."""


def _gbt(A: Tensor, step: Tensor, alpha: float) -> Discrete:
    size = step[..., None]
    z = size * A
    x, y = z[..., 0], z[..., 1]
    square = x.square() + y.square()
    below = (1 - alpha * x).square() + (alpha * y).square()
    # The logarithm of |1 + (1 - alpha) z|^2 / |1 - alpha z|^2 from what that quotient has above 1.
    excess = (2 * x + (1 - 2 * alpha) * square) / below
    near = excess > -0.5
    above = (1 + (1 - alpha) * x).square() + ((1 - alpha) * y).square()
    floor = torch.finfo(z.dtype).tiny
    far = torch.log(torch.where(near, 1.0, above / below).clamp_min(floor))
    decay = 0.5 * torch.where(near, torch.log1p(torch.where(near, excess, 0.0)), far)
    angle = torch.atan2(y, 1 + (1 - 2 * alpha) * x - alpha * (1 - alpha) * square)
    gain = size * torch.stack([1 - alpha * x, alpha * y], -1) / below[..., None]
    return Discrete(torch.stack([decay, angle], -1), gain)


def matrix_exp(M: Tensor) -> Tensor:
    """exp(M), to all digits of float64 for small matrices too.

    For a norm of a few hundredths the exponential of PyTorch, a polynomial of degree 8 there, keeps 10 digits
    of float64. One more on the diagonal keeps the norm of such matrices near 1.
    """
    if M.dtype != torch.float64:
        return torch.linalg.matrix_exp(M)
    return torch.linalg.matrix_exp(M + torch.eye(M.shape[-1], dtype=M.dtype, device=M.device)) / math.e


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(
            "The generalized bilinear rule takes alpha from 0 (forward Euler) over 1/2 (bilinear) to 1 "
            f"(backward Euler); got {alpha}."
        )


def _check_dense(A: Tensor, B: Tensor) -> None:
    if A.dim() < 2 or B.dim() < 2 or A.shape[-1] != A.shape[-2] or B.shape[-2] != A.shape[-1]:
        raise ValueError(
            "A dense system has A (..., n, n) and B (..., n, m), a column for each input; got shapes "
            f"{tuple(A.shape)} and {tuple(B.shape)}. One input is B[..., None]."
        )


def _mean_of_exp(z: Tensor) -> Tensor:
    """(exp(z) - 1) / z, the mean of exp over the segment from 0 to z; 1 at z = 0."""
    square = z.square().sum(-1, keepdim=True)
    small = square < 0.01
    # At |z| = 0.1 ten terms leave less than 1e-17, six less than 1e-9.
    terms = 10 if z.dtype == torch.float64 else 6
    near = torch.where(small, z, 0.0)
    one = torch.tensor([1.0, 0.0], dtype=z.dtype, device=z.device)
    series = one.expand_as(z)
    for k in range(terms, 1, -1):
        series = one + _pairs.times(near, series) / k
    far = torch.where(small, 1.0, z)
    return torch.where(small, series, _pairs.over(_pairs.expm1(far), far))
