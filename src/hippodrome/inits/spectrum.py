"""Where poles start: diagonal forms near HiPPO for S4D and S5, and the ring of the LRU."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from hippodrome.inits import hippo, perturb

Modes = Float64[Tensor, "half 2"]


def _half(d_state: int) -> Tensor:
    if d_state < 2 or d_state % 2:
        raise ValueError(f"A state of conjugate pairs has an even size, at least 2; got {d_state}.")
    return torch.arange(d_state // 2, dtype=torch.float64)


def lin(d_state: int) -> Modes:
    """S4D-Lin: -1/2 + i pi n, one of each conjugate pair, (d_state / 2, 2)."""
    n = _half(d_state)
    return torch.stack([torch.full_like(n, -0.5), math.pi * n], -1)


def inv(d_state: int) -> Modes:
    """S4D-Inv: -1/2 + i (N / pi) (N / (2n + 1) - 1) with N = d_state, (d_state / 2, 2)."""
    n = _half(d_state)
    return torch.stack([torch.full_like(n, -0.5), d_state / math.pi * (d_state / (2 * n + 1) - 1)], -1)


def real(d_state: int) -> Modes:
    """S4D-Real: -(n + 1), the diagonal of LegS itself, with imaginary part zero, (d_state / 2, 2)."""
    n = _half(d_state)
    return torch.stack([-(n + 1), torch.zeros_like(n)], -1)


def legs(d_state: int) -> Modes:
    """S4D-LegS: the eigenvalues of the normal part of LegS with positive imaginary part, (d_state / 2, 2)."""
    return hippo.legs_normal(d_state)[0]


class Blocks(NamedTuple):
    """A block-diagonal matrix in its eigenvectors, one of each conjugate pair."""

    poles: Float64[Tensor, "half 2"]
    V: Float64[Tensor, "n half 2"]
    """Eigenvectors of each block, one a column; 0 outside of its rows."""
    V_inv: Float64[Tensor, "half n 2"]


def hippo_blocks(n: int, blocks: int, alpha: float | None = None) -> Blocks:
    """``blocks`` copies of a LegS of size n / blocks: poles (n/2, 2), V (n, n/2, 2), V^-1 (n/2, n, 2).

    Without alpha its normal part, V unitary (Smith, Warrington, Linderman 2022, S5, arXiv 2208.04933); with
    alpha the LegS itself, perturbed by that much (S5-PTD, ``perturb.structured_ptd``). The poles of one block
    stand together, positive imaginary parts ascending. Published code keeps the negative half of each pair:
    the conjugate, so the same real system.

    Raises:
        ValueError: the blocks do not divide n into even sizes.
    """
    if n < 2 or blocks < 1 or n % (2 * blocks):
        raise ValueError(
            f"Blocks of conjugate pairs need a size n that is a multiple of 2 * blocks; got n={n}, "
            f"blocks={blocks}."
        )
    if alpha is None:
        poles, V = hippo.eigenvectors("legs", n // blocks)
        inverse = torch.stack([V[..., 0].T, -V[..., 1].T], -1)
    else:
        poles, V, inverse = perturb.half(perturb.structured_ptd(n // blocks, alpha))
    return Blocks(poles.repeat(blocks, 1), _repeat(V, blocks), _repeat(inverse, blocks))


def _repeat(part: Tensor, blocks: int) -> Tensor:
    """Copies of a matrix of pairs down the diagonal."""
    return torch.stack([torch.block_diag(*[x] * blocks) for x in part.unbind(-1)], -1)


S4D = {"lin": lin, "inv": inv, "real": real, "legs": legs}
"""Initial poles by name (Gu, Gupta, Goel, Ré 2022, arXiv 2206.11893, section 4)."""


def s4d(init: str, d_state: int) -> tuple[Modes, Float64[Tensor, "half"]]:
    """Poles by name, and B in the basis of their eigenvectors: of LegS for "legs", ones for the others."""
    if init == "legs":
        return hippo.legs_normal(d_state)
    return S4D[init](d_state), torch.ones(d_state // 2, dtype=torch.float64)


class Ring(NamedTuple):
    """Poles exp(-exp(nu) + i exp(theta)) in a ring, and the factor exp(gamma) that keeps the state's size."""

    nu: Float64[Tensor, "n"]
    theta: Float64[Tensor, "n"]
    gamma: Float64[Tensor, "n"]


def ring(n: int, r_min: float, r_max: float, max_phase: float) -> Ring:
    """n poles uniform in area on the ring r_min <= |lambda| <= r_max with phase below max_phase (radians).

    (Orvieto et al. 2023, arXiv 2303.06349, lemma 3.2 and section 3.4.) gamma is log sqrt(1 - |lambda|^2):
    white noise of variance 1 then gives a state of variance 1.

    Raises:
        ValueError: the radii are not 0 <= r_min < r_max <= 1, or max_phase is not positive.
    """
    if not 0 <= r_min < r_max <= 1 or max_phase <= 0:
        raise ValueError(
            "A ring of stable poles needs 0 <= r_min < r_max <= 1 and max_phase > 0; got "
            f"r_min={r_min}, r_max={r_max}, max_phase={max_phase}."
        )
    # Off the ends of the interval: at 0 and 1 the logarithms below may be infinite.
    u = 1e-9 + (1 - 2e-9) * torch.rand(2, n, dtype=torch.float64)
    log_square = torch.log(u[0] * (r_max**2 - r_min**2) + r_min**2)
    return Ring(
        torch.log(-0.5 * log_square), torch.log(max_phase * u[1]), 0.5 * torch.log(-torch.expm1(log_square))
    )
