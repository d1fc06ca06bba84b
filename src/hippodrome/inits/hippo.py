"""The HiPPO-LegS matrix and the spectrum of its normal part."""

import torch
from jaxtyping import Float64
from torch import Tensor


def legs(n: int) -> tuple[Float64[Tensor, "n n"], Float64[Tensor, "n"]]:
    """A (n, n) and B (n) of HiPPO-LegS: projection onto Legendre polynomials over all of the past.

    A[i, k] = -sqrt((2i+1)(2k+1)) below the diagonal, -(i+1) on it, 0 above; B[i] = sqrt(2i+1). (Gu, Dao,
    Ermon, Rudra, Ré 2020, arXiv 2008.07669, theorem 2.)
    """
    root = torch.sqrt(2 * torch.arange(n, dtype=torch.float64) + 1)
    below = torch.tril(torch.outer(root, root), -1)
    return -below - torch.diag(torch.arange(1, n + 1, dtype=torch.float64)), root


def legs_normal(n: int) -> tuple[Float64[Tensor, "half 2"], Float64[Tensor, "half"]]:
    """Half of the spectrum of LegS without its rank-one part, and B in the basis of its eigenvectors.

    A + P P^T with P[i] = sqrt(i + 1/2) is -1/2 plus a skew matrix, so its eigenvectors are orthonormal and
    its eigenvalues are pairs -1/2 +- i omega: those with omega > 0, ascending, as pairs (n/2, 2). Each
    eigenvector is turned so that its entry of V^* B is real and positive, (n/2). (Gu, Goel, Ré 2021, arXiv
    2111.00396, theorem 1; Gu, Gupta, Goel, Ré 2022, arXiv 2206.11893, section 4.)

    Raises:
        ValueError: n is odd.
    """
    if n < 2 or n % 2:
        raise ValueError(
            f"Eigenvalues of LegS come in conjugate pairs, so n must be even; got {n}. Take {n + 1}."
        )
    A, B = legs(n)
    P = torch.sqrt(torch.arange(n, dtype=torch.float64) + 0.5)
    skew = A + torch.outer(P, P) + 0.5 * torch.eye(n, dtype=torch.float64)
    omega, vectors = torch.linalg.eigh(-1j * skew.to(torch.complex128))
    half = slice(n // 2, n)
    weight = (vectors.conj().T @ B.to(torch.complex128)).abs()
    return torch.stack([torch.full_like(omega[half], -0.5), omega[half]], -1), weight[half]
