"""Perturb then diagonalize: its guarantee for any matrix, and how near it stays to HiPPO."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.inits.hippo import legs, legs_normal, low_rank
from hippodrome.inits.perturb import _Point, half, perturb_then_diagonalize, structured_ptd

FREQUENCIES = torch.cat(
    [torch.logspace(-2, 5, 1500, dtype=torch.float64), torch.linspace(0.1, 2000, 4000, dtype=torch.float64)]
)


def states(A, B, w):
    """(i w - A)^-1 B at every frequency, (frequencies, n)."""
    one = torch.eye(len(A), dtype=torch.complex128)
    return torch.linalg.solve(1j * w[:, None, None] * one - A, B.to(torch.complex128))


def rho(n, w):
    """prod (s - k), k < n, over prod (s + k), 1 <= k <= n, at s = i w."""
    s = 1j * w.to(torch.complex128)
    value = torch.ones_like(s)
    for k in range(n):
        value = value * (s - k) / (s + k + 1)
    return value


def norm(A):
    return torch.linalg.matrix_norm(A, 2).item()


def rebuilt(found):
    V, poles, V_inv = (torch.view_as_complex(x) for x in (found.V, found.poles, found.V_inv))
    return V @ torch.diag(poles) @ V_inv


@pytest.mark.parametrize("n", [2, 7, 32, 64])
def test_modulus_of_rho(n):
    expected = FREQUENCIES / torch.sqrt(FREQUENCIES.square() + n * n)
    torch.testing.assert_close(rho(n, FREQUENCIES).abs(), expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("n", [2, 8, 32])
def test_legs_is_its_normal_part_times_one_plus_rho(n):
    """x_DPLR = (1 + rho) x_Diag, where Diag is the normal part with half of B."""
    A, B = legs(n)
    P = low_rank("legs", n)
    w = FREQUENCIES[:1500:10]
    whole = states(A, B, w)
    diagonal = states(A + P @ P.T, B / 2, w)
    expected = (1 + rho(n, w))[:, None] * diagonal
    scale = whole.norm(dim=1) + diagonal.norm(dim=1)
    assert ((whole - expected).norm(dim=1) / scale).max() < 1e-9


@pytest.mark.parametrize("n", [2, 5, 12])
def test_characteristic_polynomial_of_the_normal_part(n):
    """det(s - A_N) = (prod_{k=1}^{n} (s + k) + prod_{k=0}^{n-1} (s - k)) / 2."""
    A, _ = legs(n)
    P = low_rank("legs", n)
    for s in (0.3 + 0j, 2.0 + 1j, -0.7 + 5j, 11j):
        got = complex(torch.linalg.det(s * torch.eye(n, dtype=torch.complex128) - (A + P @ P.T)))
        expected = 0.5 * (
            math.prod((s + k for k in range(1, n + 1)), start=1 + 0j)
            + math.prod((s - k for k in range(n)), start=1 + 0j)
        )
        assert abs(got - expected) < 1e-10 * abs(expected)


@pytest.mark.parametrize(
    ("n", "peak", "place"), [(8, 13.80, 19.87), (32, 208.3, 325.43), (64, 830.9, 1303.27)]
)
def test_the_normal_part_spikes_where_its_fastest_pole_is(n, peak, place):
    """Diag amplifies by 1 / |1 + rho|; its highest peak is next to the largest eigenvalue."""
    w = torch.linspace(0.9 * place, 1.1 * place, 200001, dtype=torch.float64)
    gain = 1 / (1 + rho(n, w)).abs()
    best = int(gain.argmax())
    assert gain[best].item() == pytest.approx(peak, rel=5e-4)
    assert w[best].item() == pytest.approx(place, rel=2e-5 if n > 8 else 2e-4)
    assert w[best].item() == pytest.approx(legs_normal(n)[0][-1, 1].item(), rel=2e-3)
    here = w[best : best + 1]
    A, B = legs(n)
    P = low_rank("legs", n)
    ratio = states(A + P @ P.T, B / 2, here).norm() / states(A, B, here).norm()
    assert ratio.item() == pytest.approx(gain[best].item(), rel=1e-6)
    found = structured_ptd(n, 0.1)
    assert (states(A + found.E, B, here) - states(A, B, here)).norm() <= 0.1 / 0.9 * states(A, B, here).norm()


def test_the_spike_is_narrow():
    """A part in 10^4 beside its top, at the frequency 1303.1 for n = 64, the gain is 791 already."""
    gain = 1 / (1 + rho(64, torch.tensor([1303.05, 1303.15], dtype=torch.float64))).abs()
    assert gain[0] < 791 < gain[1]


@pytest.mark.parametrize("n", [8, 64])
@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.5])
def test_structured_perturbation_stays_in_its_bound_at_every_frequency(n, alpha):
    """G_alpha = G / (1 - alpha (1 - rho) / 2), off by at most alpha / (1 - alpha) of |G|."""
    A, B = legs(n)
    found = structured_ptd(n, alpha)
    w = FREQUENCIES[::3]
    exact, near = states(A, B, w), states(A + found.E, B, w)
    expected = exact / (1 - alpha / 2 * (1 - rho(n, w)))[:, None]
    scale = exact.norm(dim=1)
    assert ((near - expected).norm(dim=1) / scale).max() < 1e-8
    deviation = ((near - exact).norm(dim=1) / scale).max()
    assert deviation <= alpha / (1 - alpha) * (1 + 1e-9)
    assert deviation > 0.9 * alpha / (1 - alpha)


def test_structured_perturbation_of_sixty_four():
    A, B = legs(64)
    found = structured_ptd(64, 0.1)
    assert f"{norm(found.E) / norm(A):.4f}" == "0.0785"
    assert found.relative_size == pytest.approx(norm(found.E) / norm(A), rel=1e-9)
    assert f"{found.condition:.1f}" == "18.2"
    assert f"{structured_ptd(64, 0.01).condition:.0f}" == "184"
    exact = states(A, B, FREQUENCIES)
    sup = ((states(A + found.E, B, FREQUENCIES) - exact).norm(dim=1) / exact.norm(dim=1)).max()
    assert f"{sup:.3f}" == "0.111"
    assert found.poles[:, 0].max() < 0
    target = (A + found.E).to(torch.complex128)
    torch.testing.assert_close(rebuilt(found), target, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("n", "expected"), [(4, "8.6e+01"), (8, "7.7e+04"), (16, "8.3e+10")])
def test_eigenvectors_of_legs_itself_are_useless(n, expected):
    """Its condition number in exact arithmetic, the eigenvectors by substitution in fractions."""
    A, _ = legs(n)
    # A is lower triangular with the eigenvalues -1..-n: column j by forward substitution.
    V = torch.zeros(n, n, dtype=torch.float64)
    for j in range(n):
        V[j, j] = 1
        for i in range(j + 1, n):
            V[i, j] = (A[i, j:i] @ V[j:i, j]) / (A[j, j] - A[i, i])
    V = V / V.norm(dim=0)
    assert f"{torch.linalg.cond(V).item():.1e}" == expected


def test_half_of_a_structured_perturbation_is_the_system():
    """Twice the real part of the half, with V^-1 B, is c (s - A - E)^-1 B."""
    n = 16
    A, B = legs(n)
    found = structured_ptd(n, 0.1)
    poles, V, V_inv = (torch.view_as_complex(x.contiguous()) for x in half(found))
    c = torch.randn(n, dtype=torch.float64).to(torch.complex128)
    for t in (0.0, 0.4, 2.0):
        dense = c.real @ torch.matrix_exp(t * (A + found.E)) @ B
        weight = (c @ V) * (V_inv @ B.to(torch.complex128))
        torch.testing.assert_close(2 * (weight * torch.exp(t * poles)).sum().real, dense)


@given(st.integers(1, 7), st.sampled_from([1e-3, 0.05, 0.3]), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_any_matrix_stays_within_its_bound(n, bound, pairs, seed):
    """The guarantee, and a condition number no worse than that of the matrix itself."""
    A = torch.randn(
        *((n, n, 2) if pairs else (n, n)), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    found = perturb_then_diagonalize(A, bound, steps=20)
    matrix = torch.view_as_complex(A) if pairs else A.to(torch.complex128)
    E = torch.view_as_complex(found.E) if pairs else found.E.to(torch.complex128)
    assert norm(E) <= bound * norm(matrix) * (1 + 1e-9)
    assert found.relative_size <= bound + 1e-9
    torch.testing.assert_close(rebuilt(found), matrix + E, rtol=0, atol=1e-8 * norm(matrix))
    assert norm(rebuilt(found) - matrix) <= (bound + 1e-9) * norm(matrix)
    V, before = torch.view_as_complex(found.V), torch.linalg.eig(matrix)[1]
    torch.testing.assert_close(V.norm(dim=0), torch.ones(n, dtype=torch.float64))
    assert found.condition == pytest.approx(torch.linalg.cond(V).item(), rel=1e-9)

    def size(W):
        return (torch.linalg.norm(W) * torch.linalg.norm(torch.linalg.inv(W))).item()

    assert size(V) <= size(before) * (1 + 1e-9)


def test_a_defective_matrix_is_diagonalized():
    """A Jordan block has one eigenvector; perturbed by a tenth it has a full set that computes well."""
    A = torch.diag(torch.ones(11, dtype=torch.float64), 1)
    found = perturb_then_diagonalize(A, 0.1)
    assert found.condition < 50
    assert norm(rebuilt(found).real - A) <= 0.1 * (1 + 1e-8)
    again = perturb_then_diagonalize(A, 0.1)
    assert again.E.equal(found.E)
    start = perturb_then_diagonalize(A, 0.1, steps=0)
    assert found.condition < start.condition


@pytest.mark.parametrize("pairs", [False, True])
def test_slope_is_that_of_automatic_differentiation(pairs):
    A = torch.randn(*((6, 6, 2) if pairs else (6, 6)), dtype=torch.float64)
    E = (0.1 * torch.randn_like(A)).requires_grad_()
    M = torch.view_as_complex(A + E) if pairs else (A + E).to(torch.complex128)
    poles, V = torch.linalg.eig(M)
    loss = torch.log(torch.linalg.norm(V) * torch.linalg.norm(torch.linalg.inv(V)))
    (expected,) = torch.autograd.grad(loss + torch.relu(1 + poles.real / 0.3).sum(), E)
    got = _Point(A, E.detach()).gradient(-0.3)
    got = torch.view_as_real(got.resolve_conj()) if pairs else got.real
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)


def test_a_stable_start_stays_stable_and_gets_better():
    A, _ = legs(16)
    start = structured_ptd(16, 0.1)
    found = perturb_then_diagonalize(A, 0.08, start.E, stable=True, steps=60)
    assert found.poles[:, 0].max() < 0
    assert found.condition < 0.8 * start.condition
    assert norm(found.E) <= 0.08 * norm(A) * (1 + 1e-9)
    half(found)


def test_what_cannot_be_met_is_said():
    jordan = torch.diag(torch.ones(3, dtype=torch.float64), 1)
    with pytest.raises(ValueError, match=r"must be within 0 .*Take a larger bound"):
        perturb_then_diagonalize(jordan, 0.0)
    unstable = torch.diag(torch.tensor([1.0, -2.0], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"poles left of 0; the best one found has Re = 1"):
        perturb_then_diagonalize(unstable, 0.1, stable=True, steps=5)
    with pytest.raises(ValueError, match="within the bound"):
        perturb_then_diagonalize(jordan, 0.1, torch.ones(4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="must have A's shape"):
        perturb_then_diagonalize(jordan, 0.1, torch.zeros(3, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="square matrix"):
        perturb_then_diagonalize(torch.zeros(3, 4), 0.1)
    with pytest.raises(ValueError, match="finite numbers"):
        perturb_then_diagonalize(torch.full((2, 2), math.nan), 0.1)
    with pytest.raises(ValueError, match="must not be negative"):
        perturb_then_diagonalize(jordan, -0.1)
    with pytest.raises(ValueError, match="conjugate pairs alone"):
        half(perturb_then_diagonalize(unstable, 0.0, steps=0))
    with pytest.raises(ValueError, match="above 0 and at most at 1"):
        structured_ptd(8, 0.0)
