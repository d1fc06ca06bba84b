"""Gated linear attention: its contract in every backend, an outer-product loop, closed forms, compilation."""

import inspect
from functools import partial

import pytest
import torch

from hippodrome.ops.gla import BACKENDS, bytes_moved, flops, gla
from hippodrome.ops.gla.examples import inputs
from hippodrome.ops.gla.torch_ import CHUNK
from hippodrome.testing.ops import CHECKS, check_float32, check_float64, check_op, check_resets, names

NAMES = names(BACKENDS)
FAST = [name for name in NAMES if name != "reference"]
ALONG_TIME = ("q", "k", "v", "log_decay")


def same(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-9) -> None:
    assert actual.shape == expected.shape
    assert actual.isfinite().all()
    scale = expected.abs().max().item()
    assert (actual - expected).abs().max().item() <= tolerance * max(scale, 1e-300)


def outer_products(q, k, v, log_decay, state=None, resets=None):
    """The recurrence written with explicit outer products, one row, head and step after the other."""
    b, t, h, _ = q.shape
    y = torch.empty_like(v)
    last = torch.empty(b, h, k.shape[-1], v.shape[-1], dtype=v.dtype)
    for i in range(b):
        for j in range(h):
            S = torch.zeros_like(last[i, j]) if state is None else state[i, j]
            for s in range(t):
                if resets is not None and resets[i, s]:
                    S = torch.zeros_like(S)
                S = torch.diag(log_decay[i, s, j].exp()) @ S + torch.outer(k[i, s, j], v[i, s, j])
                y[i, s, j] = S.T @ q[i, s, j]
            last[i, j] = S
    return y, last


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("backend", NAMES)
def test_contract(backend, check):
    check_op(gla, [backend], inputs, along_time=ALONG_TIME, checks=[check])


@pytest.mark.parametrize("sizes", [{"k": 1, "v": 1, "h": 1}, {"b": 1, "h": 3, "k": 2, "v": 9}], ids=str)
@pytest.mark.parametrize("backend", FAST)
def test_other_sizes(backend, sizes):
    check_op(
        gla,
        [backend],
        partial(inputs, **sizes),
        along_time=ALONG_TIME,
        checks=[check_float64, check_float32, check_resets],
    )


@pytest.mark.parametrize("t", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 5 * CHUNK - 1])
@pytest.mark.parametrize("backend", NAMES)
def test_it_is_a_sum_of_decayed_outer_products(backend, t):
    arguments = inputs(t=t)
    for actual, expected in zip(gla(*arguments, backend=backend), outer_products(*arguments), strict=True):
        same(actual, expected)


@pytest.mark.parametrize("backend", NAMES)
def test_without_decay_it_is_causal_linear_attention(backend):
    q, k, v, log_decay, *_ = inputs(t=41)
    y, last = gla(q, k, v, torch.zeros_like(log_decay), backend=backend)
    scores = torch.einsum("bihk,bjhk->bhij", q, k).tril()
    same(y, torch.einsum("bhij,bjhv->bihv", scores, v))
    same(last, torch.einsum("bjhk,bjhv->bhkv", k, v))


@pytest.mark.parametrize("decay", [-1.0, -10.0, -50.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("backend", NAMES)
def test_strong_decays_stay_finite_and_exact(backend, dtype, decay):
    q, k, v, log_decay, state, resets = inputs(t=3 * CHUNK + 5, dtype=dtype)
    # Key channels forget at very different rates, and the strongest for good: exp(-50 * 53) is zero.
    log_decay = torch.linspace(0, decay, log_decay.shape[-1], dtype=dtype).expand_as(log_decay)
    arguments = [x.requires_grad_() for x in (q, k, v, log_decay.clone(), state)]
    y, last = gla(*arguments, resets, backend=backend)
    doubles = [x.detach().double().requires_grad_() for x in arguments]
    expected_y, expected_last = outer_products(*doubles, resets)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    same(y.double(), expected_y, tolerance)
    same(last.double(), expected_last, tolerance)
    gradients = torch.autograd.grad(y.square().sum() + last.sum(), arguments)
    wanted = torch.autograd.grad(expected_y.square().sum() + expected_last.sum(), doubles)
    for actual, expected in zip(gradients, wanted, strict=True):
        same(actual.double(), expected, tolerance)


@pytest.mark.parametrize("backend", NAMES)
def test_a_state_all_but_forgotten_leaves_only_the_current_token(backend):
    q, k, v, log_decay, state, _ = inputs(t=CHUNK + 3)
    y, last = gla(q, k, v, torch.full_like(log_decay, -50.0), state, backend=backend)
    same(y, (q * k).sum(-1, keepdim=True) * v)
    same(last, k[:, -1, :, :, None] * v[:, -1, :, None])


def test_wrong_arguments_are_refused_with_a_sentence():
    q, k, v, log_decay, state, resets = inputs()
    unchecked = inspect.unwrap(gla)  # as users call it: without the shape checks of the test run
    with pytest.raises(ValueError, match="k must have the axes"):
        unchecked(q, k[..., :-1], v, log_decay)
    with pytest.raises(ValueError, match="initial_state must have the axes"):
        unchecked(q, k, v, log_decay, state.transpose(-1, -2), resets)
    with pytest.raises(ValueError, match="gla"):
        unchecked(q, k, v, log_decay, backend="abacus")


def test_costs():
    assert flops(2, 3, 5, 4, 6, chunk=8) == 30 * (160 + 96)
    assert bytes_moved(1, 10, 2, 4, 3) == 4 * 2 * (10 * 18 + 24)


@pytest.mark.compiled
@pytest.mark.parametrize("backend", FAST)
def test_compiles_without_a_break(backend):
    arguments = [
        z.requires_grad_() if z.is_floating_point() else z for z in inputs(t=40, dtype=torch.float32)
    ]

    def run(*z):
        y, last = gla(*z, backend=backend)
        return torch.tanh(y).sum() + (last * last).sum()

    wanted = [z for z in arguments if z.is_floating_point()]
    expected = torch.autograd.grad(run(*arguments), wanted)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for actual, value in zip(torch.autograd.grad(compiled(*arguments), wanted), expected, strict=True):
        same(actual, value, 1e-5)
