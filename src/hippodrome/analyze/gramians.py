"""How far inputs reach: Gramians, finite and infinite, in discrete and continuous time, and least energy.

Of x_k = A x_{k-1} + B u_k the Gramian over k steps is W = sum_{i<k} A^i B B^T A^{iT}; of x' = A x + B u over
a time T it is the integral of e^{tA} B B^T e^{tA^T}. The observability Gramian is that of (A^T, C^T).
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.analyze.systems import Modal
from hippodrome.ops import _pairs
from hippodrome.ops.discretize import matrix_exp

Square = Float[Tensor, "*systems n n"]


def controllability(
    A: Square, B: Float[Tensor, "*systems n m"], steps: int | None = None, *, form: str = "discrete"
) -> Square:
    """The Gramian of dense A and B over ``steps`` steps, or over all of the past where it is None.

    The infinite one solves A W A^T - W + B B^T = 0, by doubling: W_2k = W_k + A^k W_k A^{kT} (Smith 1968).

    Args:
        form: "discrete", or "continuous" for x' = A x + B u with no end; a finite time is ``over_time``.

    Raises:
        ValueError: an infinite Gramian of an unstable A, no steps, or an unknown form.
    """
    if form not in ("discrete", "continuous"):
        raise ValueError(f'A Gramian is of the form "discrete" or "continuous"; got {form!r}.')
    if form == "continuous":
        if steps is not None:
            raise ValueError("Continuous time has no steps; drop them, or take over_time(A, B, duration).")
        A, B = _cayley(A, B)
    if steps is None:
        factor = infinite_factor(A, B)
        return factor @ factor.mT
    if steps < 1:
        raise ValueError(f"A finite Gramian needs at least 1 step; got steps={steps}.")
    A, B = A.double(), B.double()
    W = first = B @ B.mT
    power = A
    for digit in bin(steps)[3:]:
        W, power = W + power @ W @ power.mT, power @ power
        if digit == "1":
            W, power = first + A @ W @ A.mT, power @ A
    return W


def observability(
    A: Square, C: Float[Tensor, "*systems p n"], steps: int | None = None, *, form: str = "discrete"
) -> Square:
    """The Gramian of what outputs tell of the state: the controllability Gramian of (A^T, C^T)."""
    return controllability(A.mT, C.mT, steps, form=form)


def over_time(A: Square, B: Float[Tensor, "*systems n m"], duration: float | int) -> Square:
    """The Gramian of x' = A x + B u over the time ``duration``; A need not be stable.

    A short time by the exponential of the block matrix [[-A, B B^T], [0, A^T]] (Van Loan 1978), then
    W(2h) = W(h) + e^{hA} W(h) e^{hA^T}.

    Raises:
        ValueError: the duration is not a positive number.
    """
    if not 0 < duration < math.inf:
        raise ValueError(f"A Gramian over time needs a positive, finite duration; got {duration}.")
    A, B = A.double(), B.double()
    n = A.shape[-1]
    size = float(torch.linalg.matrix_norm(A, ord=1).max()) * duration
    doublings = max(0, math.ceil(math.log2(max(size, 1e-300))))
    h = duration / 2**doublings
    block = torch.cat([torch.cat([-A, B @ B.mT], -1), torch.cat([torch.zeros_like(A), A.mT], -1)], -2)
    exponential = matrix_exp(h * block)
    power = exponential[..., n:, n:].mT
    W = power @ exponential[..., :n, n:]
    for _ in range(doublings):
        W, power = W + power @ W @ power.mT, power @ power
    return 0.5 * (W + W.mT)


def infinite_factor(A: Square, B: Float[Tensor, "*systems n m"]) -> Square:
    """L with L L^T the infinite Gramian of the discrete (A, B): small directions keep all their digits.

    L_2k = [L_k, A^k L_k], turned back to n columns by a QR factorization after each doubling.

    Raises:
        ValueError: an eigenvalue of A has modulus 1 or more.
    """
    A, B = A.double(), B.double()
    radius = float(torch.linalg.eigvals(A).abs().max())
    if not radius < 1:
        raise ValueError(
            "An infinite Gramian needs a stable system, every eigenvalue inside the unit circle; one has "
            f"modulus {radius:.9g}. Give a number of steps instead."
        )
    n = A.shape[-1]
    factor = _compress(torch.cat([B, B.new_zeros(*B.shape[:-1], max(0, n - B.shape[-1]))], -1))
    power = A
    for _ in range(64):
        more = power @ factor
        if bool(more.norm(dim=(-2, -1)).le(1e-17 * factor.norm(dim=(-2, -1))).all()):
            break
        factor, power = _compress(torch.cat([factor, more], -1)), power @ power
    return factor


def _compress(wide: Tensor) -> Tensor:
    """A square L with L L^T = wide wide^T."""
    return torch.linalg.qr(wide.mT, mode="r").R.mT


def _cayley(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """The discrete system with the same infinite Gramian as x' = A x + B u.

    With the scale s, (s - A)^{-1}(s + A) and sqrt(2 s) (s - A)^{-1} B: the Stein equation of these is the
    Lyapunov equation of those.
    """
    A, B = A.double(), B.double()
    values = torch.linalg.eigvals(A)
    slowest, fastest = values.abs().amin(-1), values.abs().amax(-1)
    if not bool((values.real < 0).all()):
        raise ValueError(
            "An infinite Gramian in continuous time needs every eigenvalue of A left of the imaginary axis; "
            f"the largest real part is {float(values.real.max()):.9g}. Take over_time(A, B, duration)."
        )
    s = torch.sqrt(slowest * fastest)[..., None, None]
    eye = torch.eye(A.shape[-1], dtype=A.dtype)
    both = torch.linalg.solve(s * eye - A, torch.cat([s * eye + A, torch.sqrt(2 * s) * B], -1))
    return both[..., : A.shape[-1]], both[..., A.shape[-1] :]


def diagonal(
    A: Float[Tensor, "*systems n 2"],
    B: Float[Tensor, "*systems n m 2"],
    horizon: float | int | None = None,
    *,
    form: str = "continuous",
) -> Float[Tensor, "*systems n n 2"]:
    """The Hermitian Gramian of poles A in closed form, complex numbers as pairs.

    Continuous: W_ij = -b_i b_j* (1 - e^{T (a_i + a_j*)}) / (a_i + a_j*). Discrete, with A the logarithm of
    the factors: W_ij = b_i b_j* (1 - e^{k (a_i + a_j*)}) / (1 - e^{a_i + a_j*}), so that slow poles lose no
    digits. The horizon is a time T, a number of steps k, or None for no end.

    Raises:
        ValueError: no horizon and a pole that does not decay, or an unknown form.
    """
    return _closed_form(A, B, horizon, form, hermitian=True)


def modal(system: Modal, steps: int | None = None) -> Float[Tensor, "*systems twice twice"]:
    """The controllability Gramian of ``system.dense()`` in closed form: no equation is solved.

    With W = E x x^* and M = E x x^T of the complex state, the real parts have Re (W + M) / 2, the imaginary
    ones Re (W - M) / 2, and both together Im (M - W) / 2.
    """
    W = _closed_form(system.log_a, system.B, steps, "discrete", hermitian=True)
    M = _closed_form(system.log_a, system.B, steps, "discrete", hermitian=False)
    cross = 0.5 * (M - W)[..., 1]
    top = torch.cat([0.5 * (W + M)[..., 0], cross], -1)
    return torch.cat([top, torch.cat([cross.mT, 0.5 * (W - M)[..., 0]], -1)], -2)


def _closed_form(A: Tensor, B: Tensor, horizon: float | int | None, form: str, *, hermitian: bool) -> Tensor:
    if form not in ("discrete", "continuous"):
        raise ValueError(f'A Gramian is of the form "discrete" or "continuous"; got {form!r}.')
    A, B = A.double(), B.double()
    if horizon is None:
        _must_decay(A)
    flip = torch.tensor([1.0, -1.0 if hermitian else 1.0], dtype=A.dtype)
    rate = A[..., :, None, :] + (A * flip)[..., None, :, :]
    left, right = torch.view_as_complex(B), torch.view_as_complex((B * flip).contiguous())
    weight = torch.view_as_real((left @ right.mT).contiguous())
    still = rate.square().sum(-1, keepdim=True) == 0  # a pole that neither grows nor turns, with a horizon
    inside = torch.where(still, torch.full_like(rate, -1.0), rate)
    below = -inside if form == "continuous" else -_pairs.expm1(inside)
    if horizon is None:
        return _pairs.over(weight, below)
    total = _pairs.over(-_pairs.expm1(horizon * inside), below)
    limit = torch.stack([torch.full_like(rate[..., 0], horizon), torch.zeros_like(rate[..., 0])], -1)
    return _pairs.times(weight, torch.where(still, limit, total))


def factor_of_modes(
    log_a: Float[Tensor, "*systems n 2"], b: Float[Tensor, "*systems n 2"]
) -> Float[Tensor, "*systems twice twice"]:
    """L (..., 2n, 2n) with L L^T the infinite Gramian of ``Modal.dense()`` for one input b, in closed form.

    Over the modes and their conjugates W_ij = b_i b_j* / (1 - l_i l_j*). Taking mode k out of such a matrix
    leaves one of the same kind with b_i (l_i - l_k) / (1 - l_i l_k*) for b_i, so its Cholesky factor needs
    no sums, and small directions keep their digits.

    Raises:
        ValueError: a mode does not decay.
    """
    _must_decay(log_a)
    flip = torch.tensor([1.0, -1.0], dtype=torch.float64)
    pole = torch.view_as_complex(torch.cat([log_a.double(), log_a.double() * flip], -2))
    rest = torch.view_as_complex(torch.cat([b.double(), b.double() * flip], -2))
    columns = []
    for k in range(pole.shape[-1]):
        one = pole[..., k : k + 1]
        below = -_expm1(pole + one.conj())
        columns.append(rest * torch.sqrt(-torch.expm1(2 * one.real)) / below)
        rest = rest * torch.exp(one) * _expm1(pole - one) / below
    n = log_a.shape[-2]
    L = torch.stack(columns, -1)
    # From modes and conjugates to real and imaginary parts; what is left complex is a rotation of columns.
    top, bottom = 0.5 * (L[..., :n, :] + L[..., n:, :]), -0.5j * (L[..., :n, :] - L[..., n:, :])
    real = torch.cat([top, bottom], -2)
    return _compress(torch.cat([real.real, real.imag], -1))


def _expm1(z: Tensor) -> Tensor:
    return torch.view_as_complex(_pairs.expm1(torch.view_as_real(z)))


def _must_decay(A: Tensor) -> None:
    if not bool((A[..., 0] < 0).all()):
        raise ValueError(
            "A Gramian with no end needs every pole to decay; the slowest has the real part (of its "
            f"logarithm) {float(A[..., 0].max()):.9g}. Give a horizon."
        )


class Reach(NamedTuple):
    """The cheapest way from rest to a state: its energy and its inputs in the order of time."""

    energy: float
    inputs: Float[Tensor, "steps m"]


def least_energy(
    A: Float[Tensor, "n n"], B: Float[Tensor, "n m"], target: Float[Tensor, "n"], steps: int
) -> Reach:
    """Inputs of least energy, sum u^2, that bring x_k = A x_{k-1} + B u_k from 0 to ``target`` in ``steps``.

    u = K^T W^{-1} x with K = [A^{k-1} B, ..., B] and W = K K^T, computed as the least-squares answer of
    K u = x, so the condition of W is never squared. The energy is x^T W^{-1} x.

    Raises:
        ValueError: the target is not reachable in so many steps.
    """
    if steps < 1:
        raise ValueError(f"Reaching a state takes at least 1 step; got steps={steps}.")
    columns = [B.double()]
    for _ in range(steps - 1):
        columns.append(A.double() @ columns[-1])
    K = torch.cat(columns[::-1], -1)
    x = target.double()
    u = torch.linalg.lstsq(K, x[:, None], driver="gelsd").solution[:, 0]
    miss = float((K @ u - x).norm())
    if miss > 1e-6 * max(float(x.norm()), 1e-300):
        raise ValueError(
            f"The target cannot be reached in {steps} steps: the nearest state that can is {miss:.3g} away. "
            "Allow more steps, or choose a target in the span of [B, A B, ...]."
        )
    return Reach(float(u @ u), u.view(steps, -1))


def reachable_outline(
    W: Float[Tensor, "n n"], energy: float | int = 1.0, axes: tuple[int, int] = (0, 1), points: int = 200
) -> Float[Tensor, "points 2"]:
    """The edge of {x : x^T W^{-1} x <= energy} as it is seen along all but two coordinates.

    The shadow of that ellipsoid on two coordinates is the ellipse of their block of W.
    """
    block = W.double()[list(axes)][:, list(axes)]
    values, vectors = torch.linalg.eigh(block)
    turn = torch.linspace(0, 2 * torch.pi, points, dtype=torch.float64)
    circle = torch.stack([turn.cos(), turn.sin()])
    return (vectors @ (torch.sqrt(energy * values.clamp_min(0))[:, None] * circle)).T
