"""Perturb then diagonalize: a nearby matrix whose eigenvectors are well conditioned, for any square matrix.

The eigenvectors of HiPPO matrices are too ill-conditioned to compute with. Those of A + E with a small E are
not, and running A + E instead of A is a backward error of relative size ||E|| / ||A||. (Yu, Nigmetov,
Morozov, Mahoney, Erichson 2023, "Robustifying state-space models for long sequences via approximate
diagonalization", arXiv 2310.01698.) Norms are spectral unless a letter F says Frobenius.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from hippodrome.inits import hippo

SLACK = 1e-9
"""Part of ||A|| that rounding may add to the backward error."""


class Perturbed(NamedTuple):
    """A + E = V diag(poles) V^-1, complex numbers as pairs."""

    poles: Float64[Tensor, "n 2"]
    V: Float64[Tensor, "n n 2"]
    """Eigenvectors of length 1, one a column."""
    V_inv: Float64[Tensor, "n n 2"]
    E: Float64[Tensor, "n n"] | Float64[Tensor, "n n 2"]
    """In the form of A."""
    condition: float
    """||V|| ||V^-1||."""
    relative_size: float
    """||V diag(poles) V^-1 - A|| / ||A||, as it came out with its rounding."""


def perturb_then_diagonalize(
    A: Tensor,
    bound: float,
    start: Tensor | None = None,
    stable: bool = False,
    steps: int = 300,
) -> Perturbed:
    """Find E with ||E|| <= bound ||A|| that makes the eigenvectors of A + E well conditioned.

    Adam descends log(||V||_F ||V^-1||_F), columns of length 1, which no phase of an eigenvector changes; E is
    scaled back into the bound after every step, and the best E seen is kept. The same arguments give the same
    answer. A good condition number says that the diagonal form computes well; how near its transfer function
    is to that of A it says only together with ||E|| (see ``structured_ptd`` for HiPPO).

    Args:
        A: real (n, n), or complex as pairs (n, n, 2).
        bound: largest ||E|| / ||A||, such as 0.1.
        start: the E to start from, in the form of A. None takes the best of three: 0, the part of E that
            pulls A towards a normal matrix (for LegS this is P P^T), and a fixed matrix of normal numbers.
        stable: keep every pole left of the imaginary axis.
        steps: steps of Adam; 0 takes the start as it is.

    Raises:
        ValueError: A is not a finite square matrix, bound or steps is negative, the start is beyond the
            bound, the backward error exceeds it, or no stable perturbation was found though one was asked.
    """
    A = A.detach().to(torch.float64)
    if A.dim() not in (2, 3) or A.shape[0] != A.shape[1] or A.shape[2:] not in ((), (2,)) or not len(A):
        raise ValueError(
            f"Perturb takes a square matrix, real (n, n) or complex as pairs (n, n, 2); got {tuple(A.shape)}."
        )
    if not A.isfinite().all():
        raise ValueError("Perturb takes a matrix of finite numbers; got one with infinities or NaN.")
    if not bound >= 0 or steps < 0:
        raise ValueError(f"bound and steps must not be negative; got bound={bound}, steps={steps}.")
    most = bound * _norm(A)
    if start is not None:
        E = start.detach().to(torch.float64)
        if E.shape != A.shape:
            raise ValueError(f"The start must have A's shape {tuple(A.shape)}; got {tuple(E.shape)}.")
        if _norm(E) > most + SLACK * _norm(A):
            raise ValueError(
                f"The start must be within the bound, ||E|| <= {most:.6g}; got ||E|| = {_norm(E):.6g}. "
                "Scale it down, or allow more."
            )
    else:
        E = min(_starts(A, most), key=lambda E: _rank(_Point(A, E), stable))
    return _result(A, _descend(A, E, most, stable, steps) if steps else E, bound, stable)


def structured_ptd(n: int, alpha: float = 0.1) -> Perturbed:
    """LegS with E = alpha P P^T, P as in ``hippo.low_rank``: a part of the way to its normal matrix.

    A + E stays stable. If G is what LegS makes of an input at some frequency, A + E makes G / (1 - alpha (1 -
    rho) / 2), where |rho| < 1: off by at most alpha / (1 - alpha) of |G| at every frequency, with no spikes.
    An E that ``perturb_then_diagonalize`` goes on to optimize from here has a smaller condition number and a
    transfer function several times further off, so models start from this one.

    Raises:
        ValueError: alpha is not in (0, 1].
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"The part alpha of P P^T lies above 0 and at most at 1; got {alpha}.")
    A, _ = hippo.legs(n)
    P = hippo.low_rank("legs", n)
    E = alpha * P @ P.T
    return _result(A, E, _norm(E) / _norm(A), True)


def half(perturbed: Perturbed) -> tuple[Tensor, Tensor, Tensor]:
    """One of each conjugate pair of a real matrix: poles (n/2, 2), V (n, n/2, 2), V^-1 (n/2, n, 2).

    Ascending positive imaginary part; sums over the whole are twice a real part.

    Raises:
        ValueError: the matrix has real eigenvalues, which have no partner.
    """
    poles = perturbed.poles
    upper = (poles[:, 1] > 0).nonzero()[:, 0]
    if 2 * len(upper) != len(poles):
        raise ValueError(
            f"Half a spectrum needs conjugate pairs alone; got {len(upper)} eigenvalues above the real axis "
            f"of {len(poles)}. Perturb more, or keep the whole spectrum."
        )
    kept = upper[poles[upper, 1].argsort()]
    return poles[kept], perturbed.V[:, kept], perturbed.V_inv[kept]


class _Point:
    """A + E and what there is to know of its eigenvectors."""

    def __init__(self, A: Tensor, E: Tensor) -> None:
        self.poles, self.V = torch.linalg.eig(_complex(A + E))
        self.V_inv = torch.linalg.inv_ex(self.V)[0]
        size = torch.linalg.matrix_norm(self.V) * torch.linalg.matrix_norm(self.V_inv)
        self.loss = math.log(size) if size.isfinite() else math.inf
        self.abscissa = float(self.poles.real.max())

    def gradient(self, limit: float | None) -> Tensor:
        """The slope of the loss in the entries of E, and of sum(relu(1 - Re pole / limit)) if there is one.

        With A moving by dA the eigenvectors move by V Omega, where Omega_ij = (V^-1 dA V)_ij / (pole_j -
        pole_i) off the diagonal, and the diagonal keeps their lengths.
        """
        V, W = self.V, self.V_inv
        outer, inner = W @ W.mH, V.mH @ V
        weight = outer - outer.diagonal()[:, None] * inner
        gap = self.poles[:, None] - self.poles
        weight = torch.where(gap == 0, 0, weight / torch.where(gap == 0, 1, gap))
        weight = -weight / outer.diagonal().real.sum()
        if limit is not None:
            weight = weight + torch.diag((self.poles.real > limit).to(weight) / -limit)
        return (V @ weight @ W).mH


def _rank(point: _Point, stable: bool) -> tuple[bool, float]:
    """What is better is smaller: stability first where it is asked for."""
    return stable and point.abscissa >= 0, point.loss


def _starts(A: Tensor, most: float) -> list[Tensor]:
    """Candidates of norm ``most``, and 0."""
    matrix = _complex(A)
    symmetric = 0.5 * (matrix + matrix.mH)
    top = torch.linalg.eigvalsh(symmetric)[-1]
    pull = top * torch.eye(len(A), dtype=matrix.dtype) - symmetric
    normal = torch.randn(A.shape, dtype=A.dtype, generator=torch.Generator().manual_seed(0))
    starts = [torch.zeros_like(A)]
    for E, size in ((_like(pull, A), min(most, _norm(_like(pull, A)))), (normal, most)):
        if _norm(E) > 0:
            starts.append(E * (size / _norm(E)))
    return starts


def _descend(A: Tensor, start: Tensor, most: float, stable: bool, steps: int) -> Tensor:
    """The best E of a run of Adam from the start."""
    E = start.clone()
    first = _Point(A, E)
    best, rank = start, _rank(first, stable)
    limit = None
    if stable:
        limit = 0.5 * first.abscissa if first.abscissa < 0 else -1e-3 * _norm(A)
    rate = 0.02 * most / len(A)
    optimizer = torch.optim.Adam([E], lr=rate)
    for step in range(steps):
        point = _Point(A, E)
        if _rank(point, stable) < rank:
            best, rank = E.clone(), _rank(point, stable)
        slope = _like(point.gradient(limit), A)
        if not slope.isfinite().all() or not slope.any():
            break
        E.grad = slope
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimizer.step()
        size = _norm(E)
        if size > most:
            E.mul_(most / size)
    if _rank(_Point(A, E), stable) < rank:
        best = E
    return best


def _result(A: Tensor, E: Tensor, bound: float, stable: bool) -> Perturbed:
    """The diagonal form of A + E, once it is known to hold what was promised."""
    point = _Point(A, E)
    size = _norm(A)
    rebuilt = point.V @ (point.poles[:, None] * point.V_inv)
    error = _norm(torch.view_as_real(rebuilt - _complex(A))) if rebuilt.isfinite().all() else math.inf
    if error > (bound + SLACK) * size:
        raise ValueError(
            f"V diag(poles) V^-1 must be within {bound:.3g} ||A|| = {bound * size:.3g} of A; it is "
            f"{error:.3g} away, the eigenvectors being too ill-conditioned. Take a larger bound."
        )
    if stable and point.abscissa >= 0:
        raise ValueError(
            f"A stable system has poles left of 0; the best one found has Re = {point.abscissa:.3g}. "
            "Start from a stable A + E, or take another bound."
        )
    return Perturbed(
        torch.view_as_real(point.poles),
        torch.view_as_real(point.V),
        torch.view_as_real(point.V_inv),
        E,
        float(torch.linalg.cond(point.V)),
        error / size if size > 0 else 0.0,
    )


def _complex(A: Tensor) -> Tensor:
    return torch.view_as_complex(A.contiguous()) if A.dim() == 3 else A.to(torch.complex128)


def _like(matrix: Tensor, A: Tensor) -> Tensor:
    """A complex matrix in the form of A: as pairs, or its real part."""
    return (torch.view_as_real(matrix.resolve_conj()) if A.dim() == 3 else matrix.real).contiguous()


def _norm(A: Tensor) -> float:
    return float(torch.linalg.matrix_norm(_complex(A), 2))
