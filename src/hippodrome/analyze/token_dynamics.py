"""Where depth drives tokens: the limit of many selective layers, and the verdict on a layer's maps."""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Fate = Literal["convergent", "divergent", "undecided"]


class Verdict(NamedTuple):
    """What the maps S_B and S_C of a layer say about its tokens in the limit of depth.

    ``eigenvalues``: of the symmetric part of S_C^T S_B, ascending, those that can differ from zero.
    ``proven``: whether the criterion is a theorem (one channel) or the authors' conjecture (several).
    """

    fate: Fate
    eigenvalues: tuple[float, ...]
    proven: bool


def verdict(S_B: Tensor, S_C: Tensor, tolerance: float = 1e-9) -> Verdict:
    """Whether tokens shrink to zero or grow without bound as layers with these maps are stacked.

    With one channel, mu = S_C^T S_B decides: below zero every token goes to zero, above zero they diverge.
    With several the authors conjecture that a positive eigenvalue of the symmetric part of S_C^T S_B means
    divergence and that all negative ones mean convergence; eigenvalues that are all zero leave it open.
    Vo, Pham, Tong, Nguyen 2025, "Demystifying the token dynamics of deep selective state space models", arXiv
    2410.03292.

    Args:
        S_B: map of a token to its input vector, (n, d).
        S_C: map to its readout vector, (n, d).
        tolerance: eigenvalues this much smaller than the largest product of the maps' norms count as zero.

    Raises:
        ValueError: the maps differ in shape.
    """
    if S_B.shape != S_C.shape or S_B.dim() != 2:
        raise ValueError(
            f"S_B and S_C are matrices of one shape (n, d); got {tuple(S_B.shape)} and {tuple(S_C.shape)}."
        )
    B, C = S_B.detach().double(), S_C.detach().double()
    # The symmetric part is W^T J W with W = [C; B] and has the range of W^T: a small problem for any width.
    n, d = B.shape
    if 2 * n < d:
        half = torch.linalg.qr(torch.cat([C, B]).T)[1]
        C, B = half[:, :n].T, half[:, n:].T
    product = C.T @ B
    values = torch.linalg.eigvalsh((product + product.T) / 2)
    slack = tolerance * float(torch.linalg.matrix_norm(B) * torch.linalg.matrix_norm(C))
    least, most = float(values.min()), float(values.max())
    fate: Fate = "divergent" if most > slack else "convergent" if least < -slack else "undecided"
    return Verdict(fate, tuple(values.tolist()), d == 1)


class Path(NamedTuple):
    """Tokens (t, d) at each time of a trajectory, and the times; it ends where they pass ``bound``."""

    times: Float[Tensor, "s"]
    tokens: Float[Tensor, "s t d"]


def velocity(
    x: Tensor, S_B: Tensor, S_C: Tensor, step_size: Callable[[Tensor], Tensor], rate: float = 1.0
) -> Tensor:
    """dx_l/dt = sum over j <= l of P_lj x_j of tokens (t, d), maps (n, d).

    P_lj = (S_C x_l)^T (S_B x_j) exp(-a sum_{k=j+1..l} D_k) D_j with D_k = ``step_size(x)[k]``: the limit of
    depth of layers of S6 with one rate a and residuals. Vo et al. 2025, arXiv 2410.03292.
    """
    sizes = step_size(x)
    total = sizes.cumsum(0)
    decay = torch.exp((-rate * (total[:, None] - total)).clamp(max=0.0)).tril()
    scores = (x @ S_C.T) @ (x @ S_B.T).T
    return (scores * decay * sizes) @ x


def integrate(
    x: Float[Tensor, "t d"],
    S_B: Float[Tensor, "n d"],
    S_C: Float[Tensor, "n d"],
    times: Float[Tensor, "s"],
    *,
    S_delta: Float[Tensor, "d"] | None = None,
    rate: float = 1.0,
    change: float = 0.03,
    bound: float = 1e6,
) -> Path:
    """The tokens at the given times, from ``x`` at the first of them, by Runge-Kutta of order four.

    Args:
        x: tokens at the first time, (t, d).
        S_B: map to input vectors.
        S_C: map to readout vectors.
        times: ascending.
        S_delta: step sizes are softplus(S_delta . x); None for ones.
        rate: the decay rate a.
        change: the most that a token may change in one step, as a share of its size: steps are small where
            tokens move fast and grow where they hardly move.
        bound: the path ends before a token is larger: divergent tokens reach infinity in finite time.

    Raises:
        ValueError: times that do not ascend.
    """
    if len(times) < 1 or bool((times.diff() <= 0).any()):
        raise ValueError(f"times ascend; got {times.tolist()[:5]} and so on. Sort them, each once.")

    def step_size(tokens: Tensor) -> Tensor:
        return tokens.new_ones(len(tokens)) if S_delta is None else F.softplus(tokens @ S_delta)

    def slope(tokens: Tensor) -> Tensor:
        return velocity(tokens, S_B, S_C, step_size, rate)

    found, kept = [x], [times[0]]
    for start, end in pairwise(times.tolist()):
        now = start
        while now < end:
            first = slope(x)
            size, speed = x.norm(dim=-1), first.norm(dim=-1).clamp(min=1e-300)
            h = float((change * (size + 1e-3 * size.max()) / speed).min())
            # A blow-up is reached in ever smaller steps: they end where time no longer moves.
            h = min(end - now, h)
            if now + h == now or not x.isfinite().all() or float(size.max()) > bound:
                return Path(torch.stack(kept), torch.stack(found))
            second = slope(x + h / 2 * first)
            third = slope(x + h / 2 * second)
            x = x + h / 6 * (first + 2 * second + 2 * third + slope(x + h * third))
            now += h
        found.append(x)
        kept.append(times.new_tensor(end))
    return Path(torch.stack(kept), torch.stack(found))
