"""Discretizations: published kernels, matrix exponentials of dense systems, and digits kept near A = 0."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.inits.spectrum import lin
from hippodrome.ops import _pairs
from hippodrome.ops.discretize import bilinear, impulse, zoh
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
    exact = torch.matrix_exp(step * block)
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
