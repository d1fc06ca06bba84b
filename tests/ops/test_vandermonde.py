"""The Vandermonde kernel: its contract in every backend, and phases that float32 would lose."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.ops.vandermonde import vandermonde
from hippodrome.ops.vandermonde.examples import inputs
from hippodrome.testing.ops import CHECKS, check_op


def examples(t, dtype=torch.float64):
    return inputs(length=t, dtype=dtype)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_contract(backend, check):
    check_op(vandermonde, [backend], examples, along_time=(), checks=[check])


@given(st.integers(1, 200), st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_equals_the_full_matrix_of_powers(length, n):
    log_a, c, _ = inputs(n=n)
    powers = torch.exp(torch.view_as_complex(log_a)[..., None] * torch.arange(length))
    expected = (torch.view_as_complex(c)[..., None] * powers).sum(1).real
    torch.testing.assert_close(vandermonde(log_a, c, length), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_float32_keeps_the_phase_of_a_fast_mode(backend):
    """At angle 3.1 a step, j times the angle passes 60000 radians: float32 alone is off by more than 1e-3."""
    log_a = torch.tensor([[[0.0, 3.1]]], dtype=torch.float32)
    weight = torch.tensor([[[1.0, 0.0]]])
    kernel = vandermonde(log_a, weight, 20001, backend=backend)
    angle = float(log_a[0, 0, 1])
    for j in (0, 1, 9999, 20000):
        assert kernel[0, j].item() == pytest.approx(math.cos(angle * j), abs=2e-6)


def test_an_empty_kernel_is_refused():
    with pytest.raises(ValueError, match="at least one value; got length 0"):
        vandermonde(*inputs()[:2], 0)
