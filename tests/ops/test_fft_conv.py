"""The causal long convolution: its contract in every backend, no wrap-around, and an independent oracle."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.ops.fft_conv import fft_conv
from hippodrome.ops.fft_conv.examples import inputs
from hippodrome.testing.ops import CHECKS, check_op


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_contract(backend, check):
    check_op(fft_conv, [backend], inputs, along_time=("x",), checks=[check])


@pytest.mark.parametrize("backend", ["torch", "reference"])
@given(st.integers(1, 40), st.integers(1, 50))
@settings(max_examples=15, deadline=None)
def test_equals_a_grouped_convolution_at_any_lengths(backend, t, length):
    x, kernel = inputs(t=t, length=length)
    padded = F.pad(x.transpose(1, 2), (length - 1, 0))
    expected = F.conv1d(padded, kernel.flip(1)[:, None], groups=kernel.shape[0]).transpose(1, 2)
    torch.testing.assert_close(fft_conv(x, kernel, backend=backend), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("t", [1, 2, 3, 31, 32, 33, 96])
def test_an_impulse_at_the_last_step_wraps_nowhere(backend, t):
    x = torch.zeros(1, t, 2, dtype=torch.float64)
    x[:, -1] = 1
    kernel = torch.randn(2, t, dtype=torch.float64)
    y = fft_conv(x, kernel, backend=backend)
    assert y[:, :-1].abs().sum() < 1e-12
    torch.testing.assert_close(y[0, -1], kernel[:, 0])


def test_transforms_stay_in_float32_under_autocast():
    x, kernel = inputs(t=300, length=300, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = fft_conv(x, kernel, backend="torch")
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, fft_conv(x, kernel, backend="reference"), rtol=1e-5, atol=1e-4)


@pytest.mark.compiled
def test_compiles_whole():
    compiled = torch.compile(lambda x, k: fft_conv(x, k), backend="aot_eager", fullgraph=True)
    x, kernel = inputs(dtype=torch.float32)
    x.requires_grad_()
    y = compiled(x, kernel)
    (slope,) = torch.autograd.grad(y.square().sum(), x)
    (expected,) = torch.autograd.grad(fft_conv(x, kernel).square().sum(), x)
    torch.testing.assert_close(slope, expected)
