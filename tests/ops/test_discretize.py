"""Discretizations: published kernels, matrix exponentials of dense systems, and digits kept near A = 0."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from hippodrome.inits.hippo import legs
from hippodrome.inits.spectrum import lin
from hippodrome.ops import _pairs
from hippodrome.ops.discretize import (
    DENSE,
    DIAGONAL,
    backward_euler,
    bilinear,
    dense_gbt,
    dense_zoh,
    forward_euler,
    gbt,
    impulse,
    zoh,
)
from hippodrome.ops.vandermonde import vandermonde

GOLDEN = {
    zoh: [0.38701121, 0.35034119, 0.30098495, 0.24402016, 0.18480892, 0.12845668],
    bilinear: [0.3857666, 0.34987723, 0.3014449, 0.2453625, 0.18682839, 0.13082682],
}


def kernel(rule, A, step, length, backend=None):
    """Kernel of a system with B = C = 1 in conjugate pairs, the sum over the rows of A."""
    log_a, gain = rule(A, torch.full(A.shape[:-1], step, dtype=A.dtype))
    return vandermonde(log_a[None], 2 * gain[None], length, backend=backend)[0]


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("rule", [zoh, bilinear])
def test_kernel_of_two_pairs(rule, backend):
    got = kernel(rule, lin(4), 0.1, 6, backend)
    torch.testing.assert_close(got, torch.tensor(GOLDEN[rule], dtype=torch.float64), rtol=0, atol=5e-9)


@given(st.floats(-3, -1e-3), st.floats(-20, 20), st.floats(1e-3, 1.0))
@settings(max_examples=20, deadline=None)
def test_zoh_is_the_matrix_exponential(re, im, step):
    A = torch.tensor([[re, im]], dtype=torch.float64)
    log_a, gain = zoh(A, torch.tensor([step], dtype=torch.float64))
    block = torch.tensor([[re, -im, 1.0], [im, re, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    exact = torch.as_tensor(expm((step * block).numpy()))
    torch.testing.assert_close(_pairs.exp(log_a)[0], exact[:2, 0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gain[0], exact[:2, 2], rtol=1e-10, atol=1e-12)


@given(st.floats(-30, -1e-3), st.floats(-20, 20), st.floats(1e-3, 1.0))
@settings(max_examples=20, deadline=None)
def test_bilinear_is_the_solve_of_a_dense_system(re, im, step):
    A = torch.tensor([[re, im]], dtype=torch.float64)
    log_a, gain = bilinear(A, torch.tensor([step], dtype=torch.float64))
    dense = torch.tensor([[re, -im], [im, re]], dtype=torch.float64)
    one = torch.eye(2, dtype=torch.float64)
    inverse = torch.linalg.inv(one - step / 2 * dense)
    torch.testing.assert_close(
        _pairs.exp(log_a)[0], (inverse @ (one + step / 2 * dense))[:, 0], rtol=1e-9, atol=1e-11
    )
    torch.testing.assert_close(gain[0], step * inverse[:, 0], rtol=1e-10, atol=1e-12)


def test_zoh_at_zero_is_the_step_and_its_slope_half_a_square():
    A = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    _, gain = zoh(A, torch.tensor([0.3], dtype=torch.float64))
    assert gain[0, 0].item() == pytest.approx(0.3, rel=1e-15)
    (slope,) = torch.autograd.grad(gain[0, 0], A)
    torch.testing.assert_close(slope, torch.tensor([[0.045, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("rule", [zoh, bilinear])
@pytest.mark.parametrize("size", [1e-6, 1e-4, 1e-2, 0.0999, 0.1001, 0.5])
def test_float32_keeps_its_digits_for_small_steps(rule, size):
    """Values and gradients agree with float64 to float32's own precision, however small dt A is."""
    results = []
    for dtype in (torch.float32, torch.float64):
        A = torch.tensor([[-0.5, 3.0]], dtype=torch.float32).to(dtype).requires_grad_()
        step = torch.tensor([size / 3.0], dtype=torch.float32).to(dtype).requires_grad_()
        log_a, gain = rule(A, step)
        slopes = torch.autograd.grad(log_a.sum() + gain.sum(), [A, step])
        results.append([log_a, gain, *slopes])
    for single, double in zip(*results, strict=True):
        torch.testing.assert_close(single.double(), double, rtol=3e-6, atol=1e-13)


def test_bilinear_survives_the_pole_it_maps_to_zero():
    """dt A = -2 is a factor of exactly 0, its logarithm infinite; values and gradients stay finite."""
    A = torch.tensor([[-2.0, 0.0], [-2.0 + 1e-9, 0.0]], requires_grad=True)
    log_a, gain = bilinear(A, torch.ones(2))
    assert _pairs.exp(log_a)[..., 0].abs().max() < 1e-6
    (slope,) = torch.autograd.grad(_pairs.exp(log_a).sum() + gain.sum(), A)
    assert slope.isfinite().all()


def test_zoh_resolution_identity():
    """K at twice the step is the sum of neighbours: K_2dt[l] = K_dt[2l] + K_dt[2l + 1], exactly."""
    fine, coarse = kernel(zoh, lin(8), 0.01, 64), kernel(zoh, lin(8), 0.02, 32)
    torch.testing.assert_close(coarse, fine[0::2] + fine[1::2], rtol=1e-12, atol=1e-13)


def test_bilinear_approaches_zoh_with_the_square_of_the_step():
    """Over a fixed horizon the largest difference falls by 4 when the step is halved."""
    errors = []
    for step in (0.02, 0.01, 0.005):
        length = round(1 / step)
        difference = kernel(zoh, lin(4), step, length) - kernel(bilinear, lin(4), step, length)
        errors.append(difference.abs().max().item() / step)
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.1)


def test_impulse_leaves_the_input_alone():
    log_a, gain = impulse(lin(4), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(log_a, lin(4))
    assert gain.tolist() == [[1.0, 0.0], [1.0, 0.0]]


ALPHAS = {"forward_euler": 0.0, "bilinear": 0.5, "backward_euler": 1.0}


@given(st.floats(-30, 3), st.floats(-20, 20), st.floats(1e-3, 1.0), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_generalized_bilinear_rule_is_its_formula(re, im, step, alpha):
    z = step * complex(re, im)
    below = 1 - alpha * z
    if abs(below) < 1e-3:
        return
    A = torch.tensor([[re, im]], dtype=torch.float64)
    log_a, gain = gbt(alpha)(A, torch.tensor([step], dtype=torch.float64))
    factor, weight = (1 + (1 - alpha) * z) / below, step / below
    size = 1e-9 * (1 + abs(factor))
    assert abs(complex(*_pairs.exp(log_a)[0]) - factor) < size
    assert abs(complex(*gain[0]) - weight) < 1e-12 * abs(weight)


@pytest.mark.parametrize("name", sorted(ALPHAS))
def test_named_rules_are_members_of_the_generalized_one(name):
    A, step = lin(8), torch.rand(3, 4, dtype=torch.float64)
    for got, expected in zip(DIAGONAL[name](A, step), gbt(ALPHAS[name])(A, step), strict=True):
        assert got.shape == (3, 4, 2)
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    A, B = legs(5)
    for got, expected in zip(
        DENSE[name](A, B[:, None], step), dense_gbt(A, B[:, None], step, ALPHAS[name]), strict=True
    ):
        assert got.shape[:3] == (3, 4, 5)
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("rule", [forward_euler, backward_euler, gbt(0.3)])
@pytest.mark.parametrize("size", [1e-4, 1e-2, 0.5])
def test_euler_rules_keep_their_digits_in_float32(rule, size):
    results = []
    for dtype in (torch.float32, torch.float64):
        A = torch.tensor([[-0.5, 0.3]], dtype=torch.float32).to(dtype).requires_grad_()
        step = torch.tensor([size], dtype=torch.float32).to(dtype).requires_grad_()
        log_a, gain = rule(A, step)
        results.append([log_a, gain, *torch.autograd.grad(log_a.sum() + gain.sum(), [A, step])])
    for single, double in zip(*results, strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-12)


def test_forward_euler_keeps_a_finite_logarithm_where_its_factor_is_zero():
    """dt A = -1 is a factor of exactly 0; -3 is one of -2, which grows."""
    A = torch.tensor([[-1.0, 0.0], [-1.0 + 1e-6, 0.0], [-3.0, 0.0]], requires_grad=True)
    log_a, gain = forward_euler(A, torch.ones(3))
    assert log_a.isfinite().all()
    factor = _pairs.exp(log_a)
    assert factor[0].abs().max() < 1e-18
    torch.testing.assert_close(factor[2], torch.tensor([-2.0, 0.0]), rtol=0, atol=1e-6)
    (slope,) = torch.autograd.grad(factor.sum() + gain.sum(), A)
    assert slope.isfinite().all()


@pytest.mark.parametrize("alpha", [-0.1, 1.5, math.nan])
def test_an_alpha_outside_of_the_rule_is_refused(alpha):
    one = torch.ones(1, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"alpha from 0 \(forward Euler\)"):
        gbt(alpha)
    with pytest.raises(ValueError, match=r"alpha from 0 \(forward Euler\)"):
        dense_gbt(one, one, torch.ones(()), alpha)


@pytest.mark.parametrize("rule", sorted(DENSE))
def test_dense_and_diagonal_rules_agree(rule):
    """A pair re +- i im as a real matrix of two, several systems and step sizes at once."""
    A = torch.stack([-torch.rand(3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)], -1)
    step = torch.rand(4, 3, dtype=torch.float64)
    re, im = A.unbind(-1)
    dense = torch.stack([torch.stack([re, -im], -1), torch.stack([im, re], -1)], -2)
    Abar, Bbar = DENSE[rule](dense, torch.eye(2, dtype=torch.float64)[:, :1], step)
    log_a, gain = DIAGONAL[rule](A, step)
    torch.testing.assert_close(Abar[..., 0], _pairs.exp(log_a), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(Bbar[..., 0], gain, rtol=1e-10, atol=1e-12)


def test_dense_zoh_is_its_formula_and_holds_for_a_singular_matrix():
    A, B = legs(6)
    step = torch.tensor(0.3, dtype=torch.float64)
    Abar, Bbar = dense_zoh(A, B[:, None], step)
    torch.testing.assert_close(Abar, torch.matrix_exp(0.3 * A), rtol=1e-10, atol=1e-13)
    expected = torch.linalg.solve(A, (Abar - torch.eye(6, dtype=torch.float64)) @ B[:, None])
    torch.testing.assert_close(Bbar, expected, rtol=1e-9, atol=1e-12)
    shift = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    Abar, Bbar = dense_zoh(shift, torch.tensor([[0.0], [1.0]], dtype=torch.float64), step)
    torch.testing.assert_close(Abar, torch.tensor([[1, 0.3], [0, 1]], dtype=torch.float64))
    torch.testing.assert_close(Bbar, torch.tensor([[0.045], [0.3]], dtype=torch.float64))


@pytest.mark.parametrize("inputs", [1, 5])
@pytest.mark.parametrize("size", [1e-6, 1e-3, 0.003, 1 / 128, 0.012, 0.1, 1.0])
def test_dense_zoh_keeps_the_digits_of_float64_at_any_size(size, inputs):
    """Also where the norm is a few hundredths, at which PyTorch's own exponential loses half of them."""
    block = torch.zeros(2 + inputs, 2 + inputs, dtype=torch.float64)
    block[:2, :2], block[:2, 2:] = legs(2)[0], torch.randn(2, inputs, dtype=torch.float64)
    exact = torch.as_tensor(expm((size * block).numpy()))[:2]
    Abar, Bbar = dense_zoh(block[:2, :2], block[:2, 2:], torch.tensor(size, dtype=torch.float64))
    torch.testing.assert_close(Abar, exact[:, :2], rtol=1e-13, atol=1e-15)
    assert (Bbar - exact[:, 2:]).abs().max() < 1e-13 * exact[:, 2:].abs().max()


def test_dense_zoh_takes_many_inputs_as_it_takes_each():
    """More inputs than states go by another way: the same columns, also for systems and steps apart."""
    A = torch.stack([legs(3)[0], torch.zeros(3, 3, dtype=torch.float64)])
    B, step = torch.randn(2, 3, 7, dtype=torch.float64), torch.tensor([0.3, 2.0], dtype=torch.float64)
    Abar, Bbar = dense_zoh(A, B, step)
    for column in range(7):
        one = dense_zoh(A, B[..., column : column + 1], step)
        torch.testing.assert_close(Abar, one[0], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(Bbar[..., column : column + 1], one[1], rtol=1e-12, atol=1e-14)


def dense_kernel(A, B, step, length):
    """c Abar^l Bbar with c all ones."""
    Abar, Bbar = dense_zoh(A, B[:, None], torch.tensor(step, dtype=torch.float64))
    values = []
    for _ in range(length):
        values.append(Bbar.sum())
        Bbar = Abar @ Bbar
    return torch.stack(values)


def test_dense_zoh_resolution_identity():
    """K at twice the step is the sum of neighbours, to 1e-9 of its largest value."""
    A, B = legs(16)
    fine, coarse = dense_kernel(A, B, 0.01, 200), dense_kernel(A, B, 0.02, 100)
    error = (coarse - fine[0::2] - fine[1::2]).abs().max()
    assert error < 1e-9 * coarse.abs().max()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("bilinear", [0.5470522, 0.22343937, 0.06399393, -0.00459942, -0.02562155, -0.02392916]),
        ("zoh", [0.52993287, 0.22122166, 0.06768143, 0.00057333, -0.02090998, -0.02035102]),
    ],
)
def test_published_kernel_of_legs(rule, expected):
    A, B = legs(4)
    Abar, Bbar = DENSE[rule](A, B[:, None], torch.tensor(0.1, dtype=torch.float64))
    got = torch.stack([(torch.linalg.matrix_power(Abar, k) @ Bbar).sum() for k in range(6)])
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-9)


@pytest.mark.parametrize("rule", sorted(DENSE))
def test_dense_rules_have_gradients(rule):
    A = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    B = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    step = torch.rand(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(DENSE[rule], (A, B, step))


def test_matrices_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="a column for each input"):
        dense_zoh(torch.zeros(3, 3), torch.zeros(2, 1), torch.ones(()))
