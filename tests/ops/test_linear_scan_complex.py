"""The complex linear scan: its contract in every backend and both forms of a, closed forms, compilation."""

import inspect
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.ops.linear_scan_complex import BACKENDS, bytes_moved, flops, linear_scan_complex
from hippodrome.ops.linear_scan_complex.examples import inputs
from hippodrome.testing.ops import (
    CHECKS,
    check_float32,
    check_float64,
    check_op,
    check_registration,
    check_resets,
    check_storage,
    check_threads,
    close,
    names,
)

NAMES = names(BACKENDS)
FAST = [name for name in NAMES if name != "reference"]
FORMS = pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])


def examples(constant, **sizes):
    along_time = ("x",) if constant else ("a", "x")
    return {"examples": partial(inputs, constant=constant, **sizes), "along_time": along_time}


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@FORMS
@pytest.mark.parametrize("backend", NAMES)
def test_contract(backend, constant, check):
    sizes = {"b": 1, "d": 2} if check is check_registration else {}
    check_op(linear_scan_complex, [backend], checks=[check], **examples(constant, **sizes))


@pytest.mark.parametrize("sizes", [{"d": 1}, {"b": 3, "d": 150}], ids=str)
@FORMS
@pytest.mark.parametrize("backend", FAST)
def test_sizes_around_whole_tiles(backend, constant, sizes):
    checks = [check_float64, check_float32, check_resets, check_storage, check_threads]
    check_op(linear_scan_complex, [backend], checks=checks, **examples(constant, **sizes))


def test_decays_may_be_kept_in_float32():
    # As gates near one are: bfloat16 has three digits for what they are short of it.
    check_op(
        linear_scan_complex, ["numba"], partial(inputs, b=3, d=40), along_time=("x",), checks=[check_storage]
    )


@pytest.mark.parametrize("backend", FAST)
@FORMS
@settings(max_examples=15, deadline=None)
@given(
    b=st.integers(1, 3), t=st.integers(1, 20), d=st.integers(1, 7), state=st.booleans(), resets=st.booleans()
)
def test_any_shape_agrees_with_the_definition(backend, constant, b, t, d, state, resets):
    arguments = inputs(b, t, d, constant=constant, with_state=state, with_resets=resets)
    expected = linear_scan_complex(*arguments, backend="reference")
    for actual, value in zip(linear_scan_complex(*arguments, backend=backend), expected, strict=True):
        close(actual, value, 1e-9, backend)


@pytest.mark.parametrize("backend", FAST)
def test_a_constant_decay_is_one_repeated_at_every_step(backend):
    a, x, state, resets = (z.requires_grad_(z.is_floating_point()) for z in inputs(constant=True))
    repeated = a.expand(x.shape)
    results = []
    for decay in (a, repeated):
        h, last = linear_scan_complex(decay, x, state, resets, backend=backend)
        wanted = torch.autograd.grad((h * h).sum() + last.sum(), [a, x, state])
        results.append((h, last, *wanted))
    for actual, expected in zip(*results, strict=True):
        close(actual, expected, 1e-9, backend)


@pytest.mark.parametrize("backend", NAMES)
def test_it_is_complex_arithmetic(backend):
    a, x, state, _ = inputs(t=12, with_resets=False)
    decay, value = torch.view_as_complex(a), torch.view_as_complex(x)
    # h_t = sum over s of (a_{s+1} ... a_t) x_s, summed term by term on complex tensors
    expected = decay.cumprod(1) * torch.view_as_complex(state)[:, None]
    for s in range(12):
        later = torch.cat([torch.ones_like(decay[:, :1]), decay[:, s + 1 :].cumprod(1)], 1)
        expected[:, s:] += later * value[:, s : s + 1]
    h, last = linear_scan_complex(a, x, state, backend=backend)
    close(h, torch.view_as_real(expected), 1e-12, backend)
    close(last, torch.view_as_real(expected[:, -1]), 1e-12, backend)


@pytest.mark.parametrize("backend", NAMES)
def test_a_rotation_turns_and_keeps_the_length(backend):
    angle = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    a = torch.stack([angle.cos(), angle.sin()], -1)
    state = torch.tensor([[[1.0, 0.0]] * 3], dtype=torch.float64)
    h, _ = linear_scan_complex(a, torch.zeros(1, 50, 3, 2, dtype=torch.float64), state, backend=backend)
    turned = angle * torch.arange(1, 51, dtype=torch.float64)[:, None]
    close(h[0], torch.stack([turned.cos(), turned.sin()], -1), 1e-12, backend)


def test_a_step_without_channels_or_rows_gives_nothing():
    for sizes in ({"b": 0}, {"d": 0}):
        for constant in (False, True):
            a, x, state, resets = inputs(t=3, constant=constant, **sizes)
            h, last = linear_scan_complex(a.requires_grad_(), x, state, resets, backend="numba")
            assert h.shape == x.shape
            assert last.shape == state.shape
            (grad,) = torch.autograd.grad(h.sum(), [a])
            assert torch.equal(grad, torch.zeros_like(a))


def test_wrong_arguments_are_refused_with_a_sentence():
    a, x, state, resets = inputs()
    unchecked = inspect.unwrap(linear_scan_complex)  # without the shape checks of the test run
    with pytest.raises(ValueError, match="a must have the axes"):
        unchecked(a[:, 1:], x)
    with pytest.raises(ValueError, match="a must have the axes"):
        unchecked(a[0, 0, 1:], x)
    with pytest.raises(ValueError, match="initial_state must have the axes"):
        unchecked(a, x, state[:, :-1], resets)
    with pytest.raises(ValueError, match="resets must be a bool tensor"):
        unchecked(a, x, state, resets.int())
    with pytest.raises(ValueError, match="there is no backend"):
        unchecked(a, x, backend="abacus")


def test_costs():
    assert flops(2, 3, 5) == 240
    assert bytes_moved(2, 10, 5) == 8 * (3 * 100 + 2 * 10)
    assert bytes_moved(2, 10, 5, constant=True) == 8 * (5 + 2 * 100 + 2 * 10)


@pytest.mark.compiled
@FORMS
@pytest.mark.parametrize("backend", FAST)
def test_compiles_without_a_break(backend, constant):
    arguments = [
        z.requires_grad_() if z.is_floating_point() else z
        for z in inputs(t=12, constant=constant, dtype=torch.float32)
    ]

    def run(*z):
        h, last = linear_scan_complex(*z, backend=backend)
        return torch.tanh(h).sum() + (last * last).sum()

    wanted = [z for z in arguments if z.is_floating_point()]
    expected = torch.autograd.grad(run(*arguments), wanted)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for actual, value in zip(torch.autograd.grad(compiled(*arguments), wanted), expected, strict=True):
        close(actual, value, 1e-5, backend)
