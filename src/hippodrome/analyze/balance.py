"""How many states a system needs: Hankel singular values and balanced truncation with its promise."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.analyze.gramians import factor_of_modes, infinite_factor
from hippodrome.analyze.systems import Modal, StateSpace, System


class Reduced(NamedTuple):
    """A system cut down to fewer states.

    ``bound``: twice the sum of the Hankel singular values left out; the frequency response errs by no more
    anywhere (Enns 1984; Glover 1984; in discrete time Al-Saggaf and Franklin 1987).
    ``error``: the largest error of the frequency response found, at the frequencies of ``worst_case``.
    ``kernel_error``: the largest error of the kernel, over its first ``length`` values.
    """

    system: StateSpace
    values: Float[Tensor, "*systems n"]
    bound: Float[Tensor, "*systems"]
    error: Float[Tensor, "*systems"]
    kernel_error: Float[Tensor, "*systems"]


def hankel_values(system: System) -> Float[Tensor, "*systems n"]:
    """Hankel singular values, largest first: the square roots of the eigenvalues of W_c W_o.

    They are the singular values of the map from past inputs to future outputs, so they do not depend on the
    coordinates of the state. Computed from factors of both Gramians: small ones keep their digits.

    Raises:
        ValueError: the system is not stable.
    """
    past, future = factors(system)
    return torch.linalg.svdvals(future.mT @ past)


def factors(system: System) -> tuple[Tensor, Tensor]:
    """Factors of the controllability and the observability Gramian of ``system.dense()``.

    In closed form for a diagonal system with one input, or one output; else by doubling.

    Raises:
        ValueError: the system is not stable.
    """
    A, B, C, _ = system.dense()
    if not isinstance(system, Modal):
        return infinite_factor(A, B), infinite_factor(A.mT, C.mT)
    one_in, one_out = B.shape[-1] == 1, C.shape[-2] == 1
    past = factor_of_modes(system.log_a, system.B[..., 0, :]) if one_in else infinite_factor(A, B)
    if not one_out:
        return past, infinite_factor(A.mT, C.mT)
    # A^T turns the other way and C^T holds -Im C: the conjugate modes, driven by the conjugate of C.
    flip = torch.tensor([1.0, -1.0], dtype=torch.float64)
    return past, factor_of_modes(system.log_a * flip, system.C[..., 0, :, :] * flip)


def effective_order(values: Float[Tensor, "*systems n"], tolerance: float = 0.01) -> Tensor:
    """The fewest states whose balanced truncation is promised to err by at most ``tolerance``, (*systems).

    The error is relative to the largest Hankel singular value, which the largest gain is never below.
    """
    tail = values.flip(-1).cumsum(-1).flip(-1)  # what is left out when the states before each are kept
    return (2 * tail > tolerance * values[..., :1]).sum(-1)


def balanced_truncation(system: System, order: int, *, length: int = 1024) -> Reduced:
    """Keep the ``order`` states that carry most from past inputs to future outputs (Moore 1981).

    Of systems side by side each is cut by itself. The promise is checked here, not taken on trust: ``error``
    and ``kernel_error`` are measured against the whole system.

    Raises:
        ValueError: the system is not stable, or the order is not between 1 and the number of states.
    """
    return truncations(system, [order], length=length)[0]


def truncations(
    system: System, orders: Sequence[int], *, length: int = 1024, frequencies: int = 512
) -> list[Reduced]:
    """``balanced_truncation`` to each order, from one balancing; ``frequencies`` as in ``worst_case``."""
    whole = system.dense()
    n = whole.A.shape[-1]
    for order in orders:
        if not 1 <= order <= n:
            raise ValueError(f"A system of {n} states can be cut to 1 to {n} of them; got order={order}.")
    past, future = factors(system)
    U, values, Vh = torch.linalg.svd(future.mT @ past)
    kernel = whole.kernel(length)
    cut = [_cut(whole, kernel, order, future @ U, values, past @ Vh.mT) for order in orders]
    return [one._replace(error=worst_case(system, one.system, frequencies)) for one in cut]


def _cut(
    whole: StateSpace, kernel: Tensor, order: int, left: Tensor, values: Tensor, right: Tensor
) -> Reduced:
    A, B, C, D = whole
    kept = values[..., :order]
    # A state that carries nothing (a mode with no imaginary part) has no direction: it stays at zero.
    alive = kept > 1e-15 * values[..., :1]
    scale = torch.where(alive, kept.clamp_min(1e-300).rsqrt(), 0.0)[..., None, :]
    to, back = (scale * left[..., :order]).mT, scale * right[..., :order]
    small = StateSpace(to @ A @ back, to @ B, C @ back, D)
    off = (kernel - small.kernel(kernel.shape[-3])).abs().amax((-3, -2, -1))
    bound = 2 * values[..., order:].sum(-1)
    return Reduced(small, values, bound, torch.full_like(bound, torch.nan), off)


def worst_case(one: System, other: System, frequencies: int = 512) -> Float[Tensor, "*systems"]:
    """The largest singular value of the difference of two frequency responses.

    Over a grid from 1e-5 to pi radians a step, zero, and the angle of every pole of both with its
    neighbourhood of the pole's own width, where a response can peak.
    """
    grids = [torch.zeros(1, dtype=torch.float64), torch.logspace(-5, 0, frequencies).double() * torch.pi]
    gap = one.D.new_zeros(one.D.shape[:-2])
    near = _peaks(one, other, 4 * frequencies)
    for omega in (*grids, *([near] if len(near) else [])):
        difference = one.response(omega) - other.response(omega)
        size = torch.linalg.matrix_norm(torch.view_as_complex(difference.contiguous()), ord=2)
        gap = torch.maximum(gap, size.amax(-1))
    return gap


def _peaks(one: System, other: System, most: int) -> Tensor:
    poles = torch.cat([one.poles().reshape(-1, 2), other.poles().reshape(-1, 2)])
    angle = torch.atan2(poles[:, 1], poles[:, 0]).abs()
    width = 1 - poles.norm(dim=-1)
    around = angle[:, None] + width[:, None] * torch.tensor([-1.0, -0.3, 0.0, 0.3, 1.0], dtype=poles.dtype)
    omega = around.flatten().clamp(0, torch.pi).unique()
    return omega[:: -(-len(omega) // most)]
