"""HiPPO: matrices to their digits, answers to an impulse in closed form, delays, normal parts and bases."""

import math

import pytest
import torch

from hippodrome.inits.hippo import (
    MEASURES,
    basis,
    eigenvectors,
    foud,
    fout,
    lagt,
    legs,
    legs_normal,
    legt,
    lmu,
    low_rank,
    nplr,
)
from hippodrome.ops.discretize import dense_gbt


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


def test_matrix_of_legt_and_lagt():
    A, B = legt(4)
    row = torch.tensor([-1, 1.732051, -2.236068, 2.645751], dtype=torch.float64)
    torch.testing.assert_close(A[0], row, rtol=0, atol=5e-7)
    torch.testing.assert_close(A.diagonal(), -torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float64))
    torch.testing.assert_close(A.tril(-1), legs(4)[0].tril(-1))
    torch.testing.assert_close(B, legs(4)[1])
    torch.testing.assert_close(legt(4, 2.5)[0], A / 2.5)
    A, B = lagt(3)
    assert A.tolist() == [[-0.5, 0, 0], [-1, -0.5, 0], [-1, -1, -0.5]]
    assert B.tolist() == [1, 1, 1]


def test_matrix_of_fout_and_foud():
    A, B = fout(4)
    turn, s = 2 * math.pi, math.sqrt(2)
    expected = [[-2, 0, -2 * s, 0], [0, 0, 0, 0], [-2 * s, 0, -4, -turn], [0, 0, turn, 0]]
    torch.testing.assert_close(A, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(B, torch.tensor([2, 0, 2 * s, 0], dtype=torch.float64))
    A, B = foud(4)
    expected = [[-0.5, 0, 0, 0], [0, -0.5, 0, 0], [0, 0, -0.5, -turn], [0, 0, turn, -0.5]]
    torch.testing.assert_close(A, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(B, torch.tensor([1, 0, s, 0], dtype=torch.float64))


@pytest.mark.parametrize("n", [1, 2, 5, 16])
def test_lmu_is_legt_on_other_scales(n):
    """D A D^-1 and D B with D = diag((-1)^i sqrt(2i+1)), and its entries as published."""
    i = torch.arange(n, dtype=torch.float64)
    D = (1 - 2 * (i % 2)) * torch.sqrt(2 * i + 1)
    (A, B), (A_legt, B_legt) = lmu(n, 0.7), legt(n, 0.7)
    torch.testing.assert_close(A, D[:, None] * A_legt / D, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(B, D * B_legt, rtol=1e-12, atol=1e-12)
    for j in range(n):
        for k in range(n):
            sign = -1 if j < k else (-1) ** (j - k + 1)
            assert A[j, k].item() == pytest.approx((2 * j + 1) * sign / 0.7, rel=1e-14)


@pytest.mark.parametrize("t", [0.1, 0.7, 2.0, 9.0])
def test_answer_of_lagt_to_an_impulse_is_a_laguerre_function(t):
    """(exp(tA) B)_n = exp(-t/2) L_n(t)."""
    from scipy.special import eval_laguerre

    A, B = lagt(8)
    expected = [math.exp(-t / 2) * eval_laguerre(n, t) for n in range(8)]
    torch.testing.assert_close(
        torch.matrix_exp(t * A) @ B, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-11
    )


def transfer(A, B, C, s):
    """C (s - A)^-1 B for one complex s."""
    one = torch.eye(len(A), dtype=torch.complex128)
    x = torch.linalg.solve(s * one - A, B.to(torch.complex128))
    return complex(C.to(torch.complex128) @ x)


@pytest.mark.parametrize("n", [1, 2, 5, 9])
@pytest.mark.parametrize("theta", [1.0, 2.5])
def test_legt_is_the_pade_approximant_of_a_delay(n, theta):
    """C_i = (-1)^i sqrt(2i+1) reads out the [n-1 / n] Pade approximant of exp(-theta s)."""
    A, B = legt(n, theta)
    C = torch.tensor([(-1) ** i * math.sqrt(2 * i + 1) for i in range(n)], dtype=torch.float64)
    f = math.factorial

    def polynomial(degree, x):
        other = 2 * n - 1 - degree
        return sum(
            f(2 * n - 1 - j) * f(degree) / (f(degree + other) * f(j) * f(degree - j)) * x**j
            for j in range(degree + 1)
        )

    for s in (0.3, 2j, -0.5 + 4j, 3 + 11j):
        expected = polynomial(n - 1, -theta * s) / polynomial(n, theta * s)
        assert abs(transfer(A, B, C, s) - expected) < 1e-10 * abs(expected)


@pytest.mark.parametrize("n", [2, 4, 16, 64])
def test_fout_passes_every_frequency_with_modulus_one(n):
    A, B = fout(n)
    for w in (0.01, 0.3, 1.0, 3.0, 10.0, 6.28, 100.0, 5000.0):
        assert abs(abs(transfer(A, B, B, 1j * w) - 1) - 1) < 1e-12, w


@pytest.mark.parametrize(("w", "error"), [(0.3, "4.3e-05"), (1.0, "1.5e-03"), (3.0, "1.9e-02")])
def test_fout_is_a_delay_of_slow_signals(w, error):
    A, B = fout(64)
    got = transfer(A, B, B, 1j * w) - 1
    assert f"{abs(got - complex(math.cos(w), -math.sin(w))):.1e}" == error


@pytest.mark.parametrize(
    ("measure", "steps", "cycles", "expected"),
    [
        ("fout", 100, 0.8, 0.9998),
        ("fout", 100, 1.6, 0.9989),
        ("fout", 100, 3.2, 0.9960),
        ("fout", 500, 0.8, 0.9999),
        ("legt", 100, 0.8, 0.9999),
        ("legt", 100, 1.6, 0.9997),
        ("legt", 100, 3.2, 0.9993),
    ],
)
def test_an_untrained_delay_by_a_window(measure, steps, cycles, expected):
    """Bilinear, dt = 1 / steps, on noise without frequencies above ``cycles`` in a window."""
    A, B = MEASURES[measure](64)
    C, D = (B, -1.0) if measure == "fout" else (B * (1 - 2 * (torch.arange(64) % 2)), 0.0)
    length = 12 * steps
    spectrum = torch.fft.rfft(torch.randn(length, 40, dtype=torch.float64), dim=0)
    spectrum[torch.arange(len(spectrum)) > cycles * length / steps] = 0
    u = torch.fft.irfft(spectrum, length, dim=0)
    Abar, Bbar = dense_gbt(A, B[:, None], torch.tensor(1 / steps, dtype=torch.float64), 0.5)
    x, outputs = torch.zeros(64, 40, dtype=torch.float64), []
    for value in u:
        x = Abar @ x + Bbar * value
        outputs.append(C @ x + D * value)
    y = torch.stack(outputs)[2 * steps :]
    got = torch.corrcoef(torch.stack([y.flatten(), u[steps:-steps].flatten()]))[0, 1].item()
    # The printed digits belong to one draw of the noise.
    assert 1 - got == pytest.approx(1 - expected, rel=0.5, abs=1e-4)


def test_fout_answers_an_impulse_with_its_window_and_better_so_for_more_states():
    ages = torch.linspace(0.1, 0.9, 17, dtype=torch.float64)
    errors = []
    for n in (16, 64, 256):
        A, B = fout(n)
        kept = min(n, 16)
        answer = torch.stack([torch.matrix_exp(t * A) @ B for t in ages])[:, :kept]
        errors.append((answer - basis("fout", n, ages)[:, :kept]).abs().max().item())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    A, B = fout(64)
    assert (torch.matrix_exp(0.4 * A) @ B)[0].item() == pytest.approx(1, abs=0.03)
    assert (torch.matrix_exp(1.5 * A) @ B)[0].abs() < 0.03


RANKS = {"legs": 1, "lagt": 1, "legt": 2, "fout": 1, "foud": 0}


@pytest.mark.parametrize("n", [2, 8, 64])
@pytest.mark.parametrize("measure", sorted(RANKS))
def test_half_of_the_normal_form_is_the_whole_matrix(measure, n):
    """V unitary, A = V (Lambda - P P^*) V^*, B = V (V^* B), from the half and its conjugates."""
    A, B = MEASURES[measure](n)
    poles, P, b = nplr(measure, n)
    assert P.shape == (RANKS[measure], n // 2, 2)
    assert (poles[:, 1].diff() > 0).all()
    assert (poles[:, 1] >= 0).all()
    assert (b[:, 0] > 0).all()
    _, half = eigenvectors(measure, n)
    V, poles, P, b = (torch.view_as_complex(x) for x in (half, poles, P.contiguous(), b))
    V, poles, P, b = (torch.cat([x, x.conj()], -1) for x in (V, poles, P, b))
    one = torch.eye(n, dtype=torch.complex128)
    torch.testing.assert_close(V.mH @ V, one, rtol=0, atol=1e-11)
    rebuilt = V @ (torch.diag(poles) - P.T @ P.conj()) @ V.mH
    torch.testing.assert_close(rebuilt, A.to(rebuilt), rtol=0, atol=1e-11 * A.abs().max().item())
    torch.testing.assert_close(V @ b, B.to(b), rtol=0, atol=1e-10)
    torch.testing.assert_close((V @ P.T).real, low_rank(measure, n), rtol=0, atol=1e-11)


@pytest.mark.parametrize("measure", sorted(RANKS))
def test_what_the_low_rank_leaves_is_normal(measure):
    A, _ = MEASURES[measure](12)
    P = low_rank(measure, 12)
    real = -0.5 if measure in ("legs", "foud") else 0.0
    skew = A + P @ P.T - real * torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(skew, -skew.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("measure", ["legs", "legt", "lmu", "fout"])
def test_functions_of_a_window_are_orthogonal(measure):
    from scipy.special import roots_legendre

    points, weights = (torch.from_numpy(x) for x in roots_legendre(80))
    values = basis(measure, 8, (points + 1) / 2)
    gram = values.T @ (0.5 * weights[:, None] * values)
    expected = torch.ones(8, dtype=torch.float64)
    if measure == "lmu":
        expected = 1 / (2 * torch.arange(8, dtype=torch.float64) + 1)
    if measure == "fout":
        expected[1] = 0
    torch.testing.assert_close(gram, torch.diag(expected), rtol=0, atol=1e-12)


def test_functions_are_the_answers_to_an_impulse():
    """What an impulse of age s leaves in the state is what the function of each state is at s."""
    s = torch.tensor(0.7, dtype=torch.float64)
    A, B = lagt(8)
    torch.testing.assert_close(torch.matrix_exp(s * A) @ B, basis("lagt", 8, s), rtol=1e-9, atol=1e-11)
    A, B = legs(8)
    warped = basis("legs", 8, 1 - torch.exp(-s)) * torch.exp(-s)
    torch.testing.assert_close(torch.matrix_exp(s * A) @ B, warped, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("measure", ["legt", "lmu", "fout"])
def test_a_signal_is_rebuilt_from_the_state(measure):
    """A slow wave through the exact system, read back over its window."""
    n, steps = 32, 2000
    A, B = MEASURES[measure](n)
    dt = torch.tensor(1 / steps, dtype=torch.float64)
    Abar, Bbar = dense_gbt(A, B[:, None], dt, 0.5)
    times = torch.arange(3 * steps, dtype=torch.float64) / steps
    u = torch.sin(2 * math.pi * times) + 0.5 * torch.cos(4 * math.pi * times)
    x = torch.zeros(n, 1, dtype=torch.float64)
    for value in u:
        x = Abar @ x + Bbar * value
    ages = torch.linspace(0.2, 0.8, 13, dtype=torch.float64)
    at = times[-1] + 1 / (2 * steps) - ages
    expected = torch.sin(2 * math.pi * at) + 0.5 * torch.cos(4 * math.pi * at)
    got = basis(measure, n, ages) @ x[:, 0]
    assert (got - expected).abs().max() < (0.05 if measure == "fout" else 0.01)


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="no HiPPO measure 'legx'"):
        low_rank("legx", 4)
    with pytest.raises(ValueError, match="similar to legt: take that"):
        nplr("lmu", 4)
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        basis("foud", 4, torch.zeros(1))
    with pytest.raises(ValueError, match="must be even"):
        fout(5)
    with pytest.raises(ValueError, match="positive length of time"):
        legt(4, 0.0)
    with pytest.raises(ValueError, match="at least one state"):
        legs(0)
