"""The delta rule: its contract in every backend, the published form, closed forms, compilation."""

import inspect
from functools import partial

import pytest
import torch

from hippodrome.ops.delta_rule import BACKENDS, bytes_moved, delta_rule, flops
from hippodrome.ops.delta_rule.examples import inputs
from hippodrome.ops.delta_rule.torch_ import CHUNK
from hippodrome.testing._op_case import OpCase, leaf, pull, recording
from hippodrome.testing.ops import (
    CHECKS,
    check_float32,
    check_float64,
    check_op,
    check_registration,
    check_resets,
    check_threads,
)

NAMES = [backend.NAME for backend in BACKENDS if backend.NAME != "triton"]
FAST = [name for name in NAMES if name != "reference"]
ALONG_TIME = ("q", "k", "v", "beta", "log_decay")


def same(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-9) -> None:
    assert actual.shape == expected.shape
    assert actual.isfinite().all()
    scale = expected.abs().max().item()
    assert (actual - expected).abs().max().item() <= tolerance * max(scale, 1e-300)


def with_matrices(q, k, v, beta, log_decay=None, state=None, resets=None):
    """S_t = a_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T as the papers write it, head by head."""
    b, t, h, size = k.shape
    y = torch.empty_like(v)
    last = torch.empty(b, h, size, v.shape[-1], dtype=v.dtype)
    for i in range(b):
        for j in range(h):
            S = torch.zeros_like(last[i, j]) if state is None else state[i, j]
            for s in range(t):
                if resets is not None and resets[i, s]:
                    S = torch.zeros_like(S)
                gate = 1.0 if log_decay is None else log_decay[i, s, j].exp()
                turn = torch.eye(size, dtype=v.dtype) - beta[i, s, j] * torch.outer(k[i, s, j], k[i, s, j])
                S = gate * turn @ S + beta[i, s, j] * torch.outer(k[i, s, j], v[i, s, j])
                y[i, s, j] = S.T @ q[i, s, j]
            last[i, j] = S
    return y, last


@pytest.mark.parametrize(
    "check", [c for c in CHECKS if c is not check_registration], ids=lambda c: c.__name__
)
@pytest.mark.parametrize("backend", NAMES)
def test_contract(backend, check):
    check_op(delta_rule, [backend], inputs, along_time=ALONG_TIME, checks=[check])


@pytest.mark.parametrize("operator", [0, 1], ids=["forward", "backward"])
def test_registration(operator):
    """``opcheck``, but for tracing the double backward with every size a symbol: minutes of algebra."""
    case = OpCase(delta_rule, "numba", inputs, ALONG_TIME, {})
    leaves = tuple(leaf(z) for z in case.arguments(4))
    with recording() as calls:
        pull(leaves, case.run(leaves), case.names)
    op, arguments, keywords = list(calls.values())[operator]
    tests = ["test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static"]
    torch.library.opcheck(op, tuple(leaf(z) for z in arguments), keywords, test_utils=tests)


@pytest.mark.parametrize(
    "sizes", [{"k": 1, "v": 1, "h": 1}, {"b": 1, "h": 3, "k": 2, "v": 9}, {"b": 1, "k": 20, "v": 35}], ids=str
)
@pytest.mark.parametrize("backend", FAST)
def test_other_sizes(backend, sizes):
    check_op(
        delta_rule,
        [backend],
        partial(inputs, **sizes),
        along_time=ALONG_TIME,
        checks=[check_float64, check_float32, check_resets, check_threads],
    )


@pytest.mark.parametrize("t", [1, 2, 15, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1, 5 * CHUNK - 1])
@pytest.mark.parametrize("backend", NAMES)
def test_it_is_the_published_recurrence(backend, t):
    arguments = inputs(t=t)
    for actual, expected in zip(
        delta_rule(*arguments, backend=backend), with_matrices(*arguments), strict=True
    ):
        same(actual, expected)


@pytest.mark.parametrize("backend", NAMES)
def test_a_key_gives_back_the_last_value_stored_under_it(backend):
    # Keys of length one that are orthogonal or equal, beta = 1: the state is a table that is overwritten.
    order = torch.tensor([0, 3, 1, 0, 2, 3, 3, 1])
    k = torch.eye(4, dtype=torch.float64)[order][None, :, None]
    v = torch.randn(1, len(order), 1, 5, dtype=torch.float64)
    y, last = delta_rule(k, k, v, torch.ones(1, len(order), 1, dtype=torch.float64), backend=backend)
    same(y, v)
    same(last[0, 0], v[0, [3, 7, 4, 6], 0])


@pytest.mark.parametrize("backend", NAMES)
def test_orthogonal_keys_make_it_linear_attention(backend):
    q, _, v, *_ = inputs(t=6, k=6)
    k = torch.linalg.qr(torch.randn(2, 2, 6, 6, dtype=torch.float64))[0].transpose(1, 2)
    y, last = delta_rule(q, k, v, torch.ones(2, 6, 2, dtype=torch.float64), backend=backend)
    scores = torch.einsum("bihk,bjhk->bhij", q, k).tril()
    same(y, torch.einsum("bhij,bjhv->bihv", scores, v))
    same(last, torch.einsum("bjhk,bjhv->bhkv", k, v))


@pytest.mark.parametrize("backend", NAMES)
def test_without_writes_the_gate_alone_acts(backend):
    q, k, v, beta, log_decay, state, _ = inputs(t=41)
    y, last = delta_rule(q, k, v, torch.zeros_like(beta), log_decay, state, backend=backend)
    left = log_decay.cumsum(1).exp()
    same(y, torch.einsum("bthk,bhkv,bth->bthv", q, state, left))
    same(last, state * left[:, -1, :, None, None])


@pytest.mark.parametrize("decay", [-1.0, -10.0, -80.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("backend", NAMES)
def test_strong_gates_stay_finite_and_exact(backend, dtype, decay):
    q, k, v, beta, log_decay, state, resets = inputs(t=CHUNK + 37, dtype=dtype)
    log_decay = torch.linspace(0, decay, log_decay.shape[-1], dtype=dtype).expand_as(log_decay).clone()
    arguments = [x.requires_grad_() for x in (q, k, v, beta, log_decay, state)]
    y, last = delta_rule(*arguments, resets, backend=backend)
    doubles = [x.detach().double().requires_grad_() for x in arguments]
    expected_y, expected_last = with_matrices(*doubles, resets)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    same(y.double(), expected_y, tolerance)
    same(last.double(), expected_last, tolerance)
    gradients = torch.autograd.grad(y.square().sum() + last.sum(), arguments)
    wanted = torch.autograd.grad(expected_y.square().sum() + expected_last.sum(), doubles)
    for actual, expected in zip(gradients, wanted, strict=True):
        same(actual.double(), expected, tolerance)


@pytest.mark.parametrize("backend", FAST)
def test_equal_keys_and_reflections_stay_exact(backend):
    # The hardest systems: one key all along (a triangle full of ones), beta = 2 (a reflection each step).
    q, k, v, beta, _, state, _ = inputs(t=150, dtype=torch.float32)
    k = k[:, :1].expand_as(k)
    for strength in (1.0, 2.0):
        arguments = (q, k, v, torch.full_like(beta, strength), None, state)
        doubles = [None if x is None else x.double() for x in arguments]
        expected = delta_rule(*doubles, backend="reference")
        for actual, value in zip(delta_rule(*arguments, backend=backend), expected, strict=True):
            same(actual.double(), value, 1e-5)


def test_wrong_arguments_are_refused_with_a_sentence():
    q, k, v, beta, log_decay, state, resets = inputs()
    unchecked = inspect.unwrap(delta_rule)  # as users call it: without the shape checks of the test run
    with pytest.raises(ValueError, match="k must have the axes"):
        unchecked(q, k[..., :-1], v, beta)
    with pytest.raises(ValueError, match="beta must have the axes"):
        unchecked(q, k, v, k, log_decay)
    with pytest.raises(ValueError, match="initial_state must have the axes"):
        unchecked(q, k, v, beta, log_decay, state.transpose(-1, -2), resets)
    with pytest.raises(ValueError, match="delta_rule"):
        unchecked(q, k, v, beta, backend="abacus")


def test_costs():
    assert flops(2, 3, 5, 4, 6, chunk=8) == 30 * (160 + 144)
    assert bytes_moved(1, 10, 2, 4, 3) == 4 * 2 * (10 * 16 + 24)


@pytest.mark.compiled
@pytest.mark.parametrize("backend", FAST)
def test_compiles_without_a_break(backend):
    arguments = [
        z.requires_grad_() if z.is_floating_point() else z for z in inputs(t=40, dtype=torch.float32)
    ]

    def run(*z):
        y, last = delta_rule(*z, backend=backend)
        return torch.tanh(y).sum() + (last * last).sum()

    wanted = [z for z in arguments if z.is_floating_point()]
    expected = torch.autograd.grad(run(*arguments), wanted)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for actual, value in zip(torch.autograd.grad(compiled(*arguments), wanted), expected, strict=True):
        same(actual, value, 1e-5)
