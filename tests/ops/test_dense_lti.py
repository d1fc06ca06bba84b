"""Dense time-invariant systems: their contract, the doubling of Krylov columns, published kernels."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.ops.dense_lti import dense_lti
from hippodrome.ops.dense_lti.examples import inputs
from hippodrome.ops.dense_lti.torch_ import krylov, power
from hippodrome.ops.fft_conv import fft_conv
from hippodrome.testing.ops import CHECKS, check_float64, check_op, check_resets, close


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_contract(backend, check):
    check_op(dense_lti, [backend], inputs, along_time=("u",), checks=[check])


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("d", [1, 8])
def test_contract_at_other_sizes(d, m, n):
    examples = partial(inputs, b=2, n=n, d=d, m=m)
    check_op(dense_lti, ["torch"], examples, along_time=("u",), checks=[check_float64, check_resets])


@given(t=st.integers(1, 300), marks=st.lists(st.integers(0, 299), max_size=6))
@settings(max_examples=15, deadline=None)
def test_any_length_with_resets_anywhere(t, marks):
    u, A, B, C, state, resets, skip = inputs(t=t)
    resets = torch.zeros_like(resets)
    for mark in marks:
        resets[mark % 2, mark % t] = True
    results = []
    for backend in ("torch", "reference"):
        results.append(dense_lti(u, A, B, C, state, resets, skip, backend=backend))
        results[-1] += dense_lti(u, A, B, C, state, None, skip, backend=backend)
    for actual, expected in zip(*results, strict=True):
        close(actual, expected, 1e-10, f"t = {t}, resets at {marks}")


@given(length=st.integers(1, 70))
@settings(max_examples=20, deadline=None)
def test_doubling_gives_the_powers_one_by_one(length):
    _, A, B, *_ = inputs()
    columns, squares = krylov(A, B, length)
    expected, state = [], B
    for _ in range(length):
        expected.append(state)
        state = (A @ state[..., None])[..., 0]
    close(columns, torch.stack(expected, -1), 1e-13, "columns")
    close(power(squares, length), torch.linalg.matrix_power(A, length), 1e-12, "power")


def test_is_the_convolution_with_its_kernel():
    u, A, B, C, _, _, skip = inputs(t=150, m=1)
    y, _ = dense_lti(u, A, B, C, None, None, skip)
    kernel = (C @ krylov(A, B, 150)[0])[:, 0]
    close(y[..., 0], fft_conv(u, kernel, backend="reference") + skip[:, 0] * u, 1e-12, "convolution")


def test_float32_over_many_chunks_keeps_slow_modes():
    """A rotation that fades by 1e-4 a step: after 8000 steps its angle and size are still right."""
    angle, decay = 0.7, 1 - 1e-4
    sine = (1 - angle**2) ** 0.5
    A = decay * torch.tensor([[angle, -sine], [sine, angle]], dtype=torch.float64)
    u = torch.zeros(1, 8001, 1)
    u[:, 0] = 1
    B, C = torch.tensor([[1.0, 0.0]]), torch.tensor([[[1.0, 0.0]]])
    y, _ = dense_lti(u, A[None], B, C)
    turn = torch.arccos(torch.tensor(angle, dtype=torch.float64))
    for t in (63, 64, 1000, 8000):
        assert y[0, t, 0, 0].item() == pytest.approx(float(decay**t * torch.cos(turn * t)), abs=3e-5)


def test_what_lies_before_a_reset_is_gone_even_if_it_is_not_a_number():
    u, A, B, C, state, resets, skip = inputs(b=1, t=90)
    resets[:] = False
    resets[:, 40] = True
    u[:, 39], state[:] = float("nan"), float("nan")
    y, last = dense_lti(u, A, B, C, state, resets, skip)
    assert y[:, 40:].isfinite().all()
    assert last.isfinite().all()


@pytest.mark.compiled
def test_compiles_whole():
    arguments = inputs(t=70, dtype=torch.float32)
    compiled = torch.compile(dense_lti, backend="aot_eager", fullgraph=True)
    for marks in (None, arguments[5]):
        results = []
        for form in (dense_lti, compiled):
            leaves = [x.clone().requires_grad_() for x in (*arguments[:5], arguments[6])]
            y, last = form(*leaves[:5], marks, leaves[5])
            results.append([y, last, *torch.autograd.grad(y.square().sum() + last.sum(), leaves)])
        for actual, expected in zip(*results, strict=True):
            close(actual, expected, 1e-5, "compiled")


@pytest.mark.compiled
def test_the_torch_form_compiles_to_code():
    arguments = inputs(b=1, t=40, d=2, n=2, dtype=torch.float32, with_resets=False)
    compiled = torch.compile(dense_lti, fullgraph=True)
    for actual, expected in zip(
        compiled(*arguments), dense_lti(*arguments, backend="reference"), strict=True
    ):
        close(actual, expected, 1e-5, "inductor")
