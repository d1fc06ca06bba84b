"""The companion kernel: its contract, the published formula as an oracle, eigenvalues on the unit circle."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.ops.companion_kernel import companion_kernel
from hippodrome.ops.companion_kernel.examples import inputs
from hippodrome.testing.ops import CHECKS, check_op


def examples(t, dtype=torch.float64):
    return inputs(length=t, dtype=dtype)


def dense(a):
    """The companion matrices (d, n, n)."""
    n = a.shape[-1]
    A = torch.diag_embed(torch.ones(a.shape[0], n - 1, dtype=a.dtype), -1)
    A[..., -1] += a
    return A


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_contract(backend, check):
    check_op(companion_kernel, [backend], examples, along_time=(), checks=[check])


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_golden_kernel(backend):
    a, b, c = ([0.5, 0.25], [1.0, 0.0], [1.0, 1.0])
    a, b, c = (torch.tensor([x], dtype=torch.float64) for x in (a, b, c))
    expected = torch.tensor([1, 1, 0.75, 0.6875, 0.546875, 0.48046875], dtype=torch.float64)
    torch.testing.assert_close(companion_kernel(a, b, c[:, None], 6, backend=backend)[0, 0], expected)


@given(st.integers(1, 40), st.integers(1, 90), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_equals_the_powers_of_the_matrix(n, length, seed):
    """States fewer than the length, as many, and more."""
    a, b, c, _ = inputs(n=n, seed=seed)
    x, values = b[..., None], []
    for _ in range(length):
        values.append((c @ x)[..., 0])
        x = dense(a) @ x
    expected = torch.stack(values, -1)
    got = companion_kernel(a, b, c, length)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-11 * float(expected.abs().max()))


@pytest.mark.parametrize(("n", "length"), [(4, 32), (32, 32), (64, 48)])
def test_equals_the_published_formula_at_the_roots_of_unity(n, length):
    """K at z = exp(-2 pi i m / L) is q(ct, b) + q(ct, a) q(e, b) / (1/z - q(e, a)) with ct = c - c A^L."""
    a, b, c, _ = inputs(n=n, m=1)
    ct = c[:, 0] - (c @ torch.linalg.matrix_power(dense(a), length))[:, 0]
    e = torch.zeros_like(a)
    e[:, -1] = 1

    def q(u, v):
        r = torch.stack([(u[:, m:] * v[:, : n - m]).sum(-1) for m in range(n)], -1)
        folded = torch.zeros(a.shape[0], length, dtype=a.dtype)
        return torch.fft.fft(folded.index_add(1, torch.arange(n) % length, r))

    back = torch.exp(2j * torch.pi * torch.arange(length, dtype=torch.float64) / length)
    spectrum = q(ct, b) + q(ct, a) * q(e, b) / (back - q(e, a))
    expected = torch.fft.ifft(spectrum).real
    torch.testing.assert_close(companion_kernel(a, b, c, length)[:, 0], expected, rtol=0, atol=1e-10)


def test_an_eigenvalue_on_a_root_of_unity_divides_by_nothing():
    """Positive last columns of sum one have the eigenvalue 1, where the published formula divides by zero."""
    a, b, c, _ = inputs(n=6)
    a = (a.abs() / a.abs().sum(-1, keepdim=True)).requires_grad_()
    kernel = companion_kernel(a, b, c, 64)
    torch.testing.assert_close(kernel, companion_kernel(a, b, c, 64, backend="reference"), rtol=0, atol=1e-11)
    (slope,) = torch.autograd.grad(kernel.square().sum(), a)
    assert slope.isfinite().all()


def test_an_empty_kernel_is_refused():
    with pytest.raises(ValueError, match="at least one value; got length 0"):
        companion_kernel(*inputs()[:3], 0)
