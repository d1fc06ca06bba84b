"""A long filter as a recurrence of fixed size: the diagonal system nearest to it, and how near that is."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.analyze.systems import Modal


class Distilled(NamedTuple):
    """Diagonal systems in the place of filters.

    ``system``: of each filter, with B = 1 and D = 0, so that C is the weight of ``ops.diagonal_lti``.
    ``error``: the norm of (filter - kernel of the system) over all lags to infinity, over the norm of the
    filter. White noise through both comes out that far apart.
    ``values``: the filter's Hankel singular values, largest first: what fewer or more states could reach.
    """

    system: Modal
    error: Float[Tensor, "*filters"]
    values: Float[Tensor, "*filters l"]


@torch.no_grad()
def distill(kernel: Float[Tensor, "*filters l"], order: int) -> Distilled:
    """The stable diagonal system of ``order`` real states for each filter of l taps, which end there.

    Poles by balanced truncation (Moore 1981) of the shift register that a finite filter is: its Gramians are
    the identity and the square of the Hankel matrix of the taps, so one eigendecomposition balances it, and
    the truncation of a stable system is stable. Weights by least squares over twice the taps, which can only
    come nearer. One of each pair of conjugate poles is kept. O(l^3) work a filter, in float64.

    Taken of a convolution that was trained, such as ``Hyena.kernel``, it says what a recurrence in its place
    costs; the skip of the convolution stays as it is.

    Raises:
        ValueError: an order that is not between 1 and the number of taps, or taps that are not finite.
    """
    length = kernel.shape[-1]
    if not 1 <= order <= length:
        raise ValueError(f"A filter of {length} taps is distilled to 1 to {length} states; got {order}.")
    taps = kernel.double().reshape(-1, length)
    if not bool(taps.isfinite().all()):
        raise ValueError("A filter to distill has finite taps; some of these are not. Look at its weights.")
    found = [_one(k, order) for k in taps]
    most = max(len(log_a) for log_a, _, _, _ in found)
    lead = kernel.shape[:-1]

    def joined(parts: list[Tensor], value: float) -> Tensor:
        rows = [torch.cat([p, p.new_tensor([value, 0.0]).expand(most - len(p), 2)]) for p in parts]
        return torch.stack(rows).reshape(*lead, most, 2)

    log_a, C = joined([f[0] for f in found], -1.0), joined([f[1] for f in found], 0.0)
    B = torch.zeros_like(log_a)
    B[..., 0] = 1
    system = Modal(log_a, B[..., None, :], C[..., None, :, :], taps.new_zeros(*lead, 1, 1))
    error = torch.stack([f[2] for f in found]).reshape(lead)
    return Distilled(system, error, torch.stack([f[3] for f in found]).reshape(*lead, length))


def _one(k: Tensor, order: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logarithms of poles and weights (n, 2) of one filter, its error, and its Hankel singular values."""
    length = len(k)
    lag = torch.arange(length)[:, None] + torch.arange(length)
    hankel = torch.where(lag < length, k[lag.clamp_max(length - 1)], 0.0)
    signed, vectors = torch.linalg.eigh(hankel)
    rank = signed.abs().argsort(descending=True)
    values = signed.abs()[rank]
    # A direction that carries nothing has no scale to balance it by.
    kept = rank[:order][values[:order] > 1e-14 * values[0].clamp_min(1e-300)]
    if not len(kept):
        zero = k.new_tensor([[-1.0, 0.0]])
        return zero, torch.zeros_like(zero), k.new_zeros(()), values
    scale = signed[kept].abs().sqrt()
    V = vectors[:, kept] * signed[kept].sign()
    A = scale[:, None] * (V[1:].T @ V[:-1]) / scale
    poles = torch.linalg.eigvals(A)
    poles = poles[poles.imag >= 0]
    # A filter of very few taps has poles at zero, which no logarithm holds; e^-40 does as well.
    log_a = torch.log(poles).real.clamp_min(-40.0) + 1j * torch.log(poles).imag.nan_to_num(0.0)
    powers = torch.exp(torch.arange(2 * length)[:, None] * log_a)
    # The weight of a real pole is real: its imaginary part would have nothing to act on.
    columns = torch.cat([powers.real, -powers.imag], 1)
    wanted = torch.cat([k, torch.zeros_like(k)])
    solution = torch.linalg.lstsq(columns, wanted[:, None], driver="gelsd").solution[:, 0]
    weight = torch.complex(*solution.view(2, -1))
    near = k - (powers[:length] * weight).sum(1).real
    left = weight * torch.exp(length * log_a)  # what is still to come where the filter has ended
    twice = _pairwise(left, left, log_a, log_a) + _pairwise(left, left.conj(), log_a, log_a.conj())
    lost = near.square().sum() + 0.5 * twice.real.clamp_min(0)
    error = (lost / k.square().sum()).sqrt()
    return torch.view_as_real(log_a), torch.view_as_real(weight), error, values


def _pairwise(a: Tensor, b: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """The sum over n, m and all lags j of a_n b_m (p_n q_m)^j."""
    return (a[:, None] * b / -torch.expm1(log_p[:, None] + log_q)).sum()
