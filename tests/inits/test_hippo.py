"""HiPPO-LegS: the matrix, its closed-form answer to an impulse, and the spectrum of its normal part."""

import math

import pytest
import torch

from hippodrome.inits.hippo import legs, legs_normal


def test_matrix_of_size_four():
    A, B = legs(4)
    expected = [
        [-1, 0, 0, 0],
        [-1.732051, -2, 0, 0],
        [-2.236068, -3.872983, -3, 0],
        [-2.645751, -4.582576, -5.916080, -4],
    ]
    torch.testing.assert_close(A, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-7)
    torch.testing.assert_close(B.square(), torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float64))


@pytest.mark.parametrize("t", [0.1, 0.7, 2.0])
def test_answer_to_an_impulse_is_a_legendre_polynomial(t):
    """(exp(tA) B)_n = exp(-t) sqrt(2n + 1) P_n(2 exp(-t) - 1)."""
    from scipy.special import eval_legendre

    A, B = legs(8)
    expected = [
        math.exp(-t) * math.sqrt(2 * n + 1) * eval_legendre(n, 2 * math.exp(-t) - 1) for n in range(8)
    ]
    torch.testing.assert_close(
        torch.matrix_exp(t * A) @ B, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12
    )


KNOWN = {
    4: [0.556501, 4.603293],
    8: [0.427489, 1.957794, 5.354209, 19.85741],
    64: [0.263857, 0.905859, 1.702968, 2.625655],
}


@pytest.mark.parametrize("n", [4, 8, 64])
def test_eigenvalues_of_the_normal_part(n):
    modes, _ = legs_normal(n)
    assert (modes[:, 0] == -0.5).all()
    torch.testing.assert_close(
        modes[: len(KNOWN[n]), 1], torch.tensor(KNOWN[n], dtype=torch.float64), rtol=2e-6, atol=0
    )
    if n == 64:
        torch.testing.assert_close(
            modes[-2:, 1], torch.tensor([433.030757, 1303.273843], dtype=torch.float64), rtol=0, atol=5e-7
        )


@pytest.mark.parametrize("n", [2, 4, 8, 64, 128])
def test_frequencies_solve_their_equation(n):
    """omega_j is where sum_{k=1}^{N} atan(omega / (k - 1/2)) = pi (j + 1/2)."""
    omega = legs_normal(n)[0][:, 1]
    k = torch.arange(1, n + 1, dtype=torch.float64)
    total = torch.atan(omega[:, None] / (k - 0.5)).sum(1)
    expected = math.pi * (torch.arange(n // 2, dtype=torch.float64) + 0.5)
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-10)


def test_normal_part_in_its_eigenvectors_is_the_dense_one():
    """B exp(tS) B of the normal part S = A + P P^T, dense, against twice the sum over half the spectrum."""
    n = 8
    A, B = legs(n)
    P = torch.sqrt(torch.arange(n, dtype=torch.float64) + 0.5)
    modes, weight = legs_normal(n)
    for t in (0.0, 0.3, 2.0):
        dense = B @ torch.matrix_exp(t * (A + torch.outer(P, P))) @ B
        half = 2 * (weight.square() * torch.exp(t * modes[:, 0]) * torch.cos(t * modes[:, 1])).sum()
        torch.testing.assert_close(half, dense, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n", [0, 1, 7])
def test_an_odd_size_is_refused(n):
    with pytest.raises(ValueError, match="must be even"):
        legs_normal(n)
