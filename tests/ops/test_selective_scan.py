"""The selective scan: its contract in every backend, fixtures computed apart, any shape, compilation."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.ops.selective_scan import BACKENDS, selective_scan
from hippodrome.ops.selective_scan.examples import inputs
from hippodrome.testing.ops import (
    CHECKS,
    check_chunks_join,
    check_double_backward,
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

ALONG_TIME = ("u", "dt", "B", "C", "z")
NAMES = names(BACKENDS)
FAST = [name for name in NAMES if name != "reference"]


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("softplus", [True, False], ids=["softplus", "plain"])
@pytest.mark.parametrize("backend", NAMES)
def test_contract(backend, softplus, check):
    sizes = {"b": 1, "d": 2, "n": 2} if check is check_registration else {}
    examples = partial(inputs, softplus=softplus, **sizes)
    check_op(
        selective_scan,
        [backend],
        examples,
        along_time=ALONG_TIME,
        options={"softplus": softplus},
        checks=[check],
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("backend", NAMES)
def test_contract_with_a_complex_A(backend, check):
    check_op(
        selective_scan,
        [backend],
        partial(inputs, b=1, d=4, n=2, g=2, complex_=True),
        along_time=ALONG_TIME,
        options={"softplus": True},
        checks=[check],
    )


@pytest.mark.parametrize(
    ("constant", "g", "complex_"), [("B", 0, True), ("C", 2, False), ("BC", 0, False)], ids=str
)
@pytest.mark.parametrize("backend", FAST)
def test_contract_with_vectors_that_are_constant_in_time(backend, constant, g, complex_):
    varying = tuple(x for x in "BC" if x not in constant)
    check_op(
        selective_scan,
        [backend],
        partial(inputs, b=2, d=4, n=2, g=g, constant=constant, complex_=complex_),
        along_time=("u", "dt", "z", *varying),
        options={"softplus": True},
        checks=[check_float64, check_float32, check_resets, check_chunks_join, check_double_backward],
    )


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("backend", NAMES)
def test_constant_vectors_are_varying_ones_that_stay_the_same(backend, complex_):
    # One group a channel, the same at all times.
    u, dt, A, B, C, *rest = inputs(constant="BC", complex_=complex_)
    alike = [x.expand(*u.shape[:2], *x.shape) for x in (B, C)]
    expected = selective_scan(u, dt, A, *alike, *rest, softplus=True, backend="reference")
    mixed = selective_scan(u, dt, A, B, alike[1], *rest, softplus=True, backend=backend)
    both = selective_scan(u, dt, A, B, C, *rest, softplus=True, backend=backend)
    for actual in (mixed, both):
        close(actual[0], expected[0], 1e-12, "outputs")
        close(actual[1], expected[1], 1e-12, "final state")


def test_a_complex_A_is_two_conjugate_halves_of_one_scan():
    # Written out in complex numbers over both members of each pair: what is read is real by itself.
    u, dt, A, B, C, *_ = inputs(b=1, t=20, d=3, n=2, complex_=True, softplus=False)
    h = torch.zeros(3, 4, dtype=torch.complex128)
    pairs = [torch.view_as_complex(x) for x in (A, B[0], C[0])]
    A2, B2, C2 = (torch.cat([x, x.conj()], -1) for x in pairs)
    expected = []
    for i in range(20):
        h = torch.exp(dt[0, i, :, None] * A2) * h + (dt[0, i] * u[0, i])[:, None] * B2[i]
        y = h @ C2[i]
        assert y.imag.abs().max() <= 1e-12
        expected.append(y.real)
    y, last = selective_scan(u, dt, A, B, C)
    close(y[0], torch.stack(expected), 1e-12, "outputs")
    close(last[0], torch.view_as_real(h[:, :2]), 1e-12, "final state")


def test_a_complex_A_with_no_imaginary_parts_is_two_real_scans():
    u, dt, A, B, C, *rest = inputs(complex_=True, with_skip=False)
    A[..., 1] = 0
    y, last = selective_scan(u, dt, A, B, C, *rest, softplus=True)
    *rest, state, resets = rest
    parts = [
        selective_scan(u, dt, A[..., 0], B[..., i], C[..., i], *rest, state[..., i], resets, softplus=True)
        for i in (0, 1)
    ]
    close(y, 2 * (parts[0][0] - parts[1][0]), 1e-9, "outputs")
    close(last, torch.stack([parts[0][1], parts[1][1]], -1), 1e-9, "final state")


@pytest.mark.parametrize(
    "sizes",
    [{"d": 16, "n": 1}, {"d": 17, "n": 3, "b": 1}, {"d": 40, "n": 8, "g": 2}, {"d": 300, "n": 5}, {"n": 20}],
    ids=str,
)
def test_sizes_around_whole_registers_with_a_complex_A(sizes):
    examples = partial(inputs, complex_=True, **sizes)
    checks = [check_float64, check_float32, check_resets, check_storage]
    options = {"softplus": True}
    check_op(selective_scan, ["numba"], examples, along_time=ALONG_TIME, options=options, checks=checks)


def test_fast_turns_of_a_complex_A_stay_exact():
    # Angles dt Im A of up to two thousand, hundreds of turns in a step.
    u, dt, A, *rest = inputs(t=70, d=20, complex_=True)
    A[..., 1] *= 1e3
    leaves = [x.requires_grad_() if x.is_floating_point() else x for x in (u, dt, A, *rest)]
    wanted = [x for x in leaves if x.requires_grad]
    found = []
    for backend in ("numba", "reference"):
        y, last = selective_scan(*leaves, softplus=True, backend=backend)
        weights = [torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view(x.shape) for x in (y, last)]
        found.append((y, last, *torch.autograd.grad([y, last], wanted, weights)))
    for actual, expected in zip(*found, strict=True):
        close(actual, expected, 1e-9, "fast turns")


@pytest.mark.parametrize(
    "sizes",
    [
        {"d": 16, "n": 1},
        {"d": 17, "n": 3, "b": 1},
        {"d": 40, "n": 16, "g": 2},
        {"d": 300, "n": 5},
        {"n": 20},
        {"n": 64, "d": 3},
    ],
    ids=str,
)
def test_sizes_around_whole_registers_and_groups_of_state(sizes):
    examples = partial(inputs, **sizes)
    checks = [check_float64, check_float32, check_resets, check_storage]
    options = {"softplus": True}
    check_op(selective_scan, ["numba"], examples, along_time=ALONG_TIME, options=options, checks=checks)


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_many_tiles_give_the_same_bits_on_any_number_of_threads(complex_):
    examples = partial(inputs, d=530, complex_=complex_)
    options = {"softplus": True}
    check_op(
        selective_scan,
        ["numba"],
        examples,
        along_time=ALONG_TIME,
        options=options,
        checks=[check_threads],
    )


def test_step_sizes_keep_float32_beside_inputs_in_bfloat16():
    u, dt, A, B, C, D, z, bias, state, resets = inputs(dtype=torch.float32, softplus=False)
    halves = [x.bfloat16() for x in (u, B, C, z)]

    def run(dt, backend):
        u, B, C, z = halves if backend == "numba" else [x.double() for x in halves]
        return selective_scan(u, dt, A, B, C, D, z, bias, state, resets, backend=backend)

    leaf, exact = dt.clone().requires_grad_(), dt.double().requires_grad_()
    y, last = run(leaf, "numba")
    _, expected_last = run(exact, "reference")
    assert y.dtype == torch.bfloat16
    close(last, expected_last, 1e-5, "final state")
    weight = torch.randn_like(last)
    (found,) = torch.autograd.grad(last, leaf, weight)
    (wanted,) = torch.autograd.grad(expected_last, exact, weight.double())
    close(found, wanted, 1e-5, "gradient to the step sizes")


@pytest.mark.parametrize("start", [0.0, 3.0])
@pytest.mark.parametrize("backend", NAMES)
def test_halving_gives_the_geometric_series(backend, start):
    # A = -1 and dt = ln 2 halve the state at each step; B enters by Euler's rule, hence the factor 2 ln 2.
    ones = torch.ones(1, 30, 1, dtype=torch.float64)
    state = torch.full((1, 1, 1), start, dtype=torch.float64)
    y, last = selective_scan(
        ones, math.log(2) * ones, -ones[0, :1], ones, ones, initial_state=state, backend=backend
    )
    halved = 0.5 ** torch.arange(1, 31, dtype=torch.float64)
    expected = 2 * math.log(2) * (1 - halved) + start * halved
    close(y[0, :, 0], expected, 1e-12, backend)
    close(last[0, 0], expected[-1:], 1e-12, backend)
    if not start:
        known = torch.tensor([0.6931471806, 1.0397207708, 1.2130075660], dtype=torch.float64)
        close(y[0, :3, 0], known, 1e-9, backend)


def sines(shape, k):
    count = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return torch.sin(k * count).view(shape)


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


UNGATED = rows(
    [0.3603029606, 1.8287063253, 1.8528832490, 0.6711153953, -0.2319908708],
    [-0.4806176667, -1.7814921217, -1.6079049508, -0.3141867044, 0.0386221584],
)
GATED = rows(
    [0.1066853711, 1.0752771799, 1.3502621734, 0.4350159695, -0.0895944270],
    [-0.0363012793, 0.2582112496, 0.3885952138, 0.0839630264, -0.0102623634],
)
LAST = rows(
    [0.0754138255, 0.1471301252, 0.1640696111],
    [0.2478775852, -0.0670097589, -0.4335001568],
)


@pytest.mark.parametrize("gated", [False, True], ids=["ungated", "gated"])
@pytest.mark.parametrize("backend", NAMES)
def test_numbers_of_a_scan_of_sines(backend, gated):
    u, z = (sines((1, 2, 5), k).transpose(1, 2) for k in (0.7, 0.5))
    dt = 0.5 * (1 + sines((1, 2, 5), 1.3)).transpose(1, 2)
    B, C = (sines((1, 3, 5), k).transpose(1, 2) for k in (0.3, 0.9))
    A = -rows([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    D = torch.ones(2, dtype=torch.float64)
    y, last = selective_scan(u, dt, A, B, C, D, z if gated else None, backend=backend)
    close(y[0].T, GATED if gated else UNGATED, 1e-9, backend)
    close(last[0], LAST, 1e-9, backend)


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=12, deadline=None)
@given(
    b=st.integers(1, 2),
    t=st.integers(1, 20),
    d=st.integers(1, 4),
    n=st.integers(1, 5),
    g=st.integers(0, 2),
    state=st.booleans(),
    resets=st.booleans(),
    rest=st.booleans(),
)
def test_any_shape_agrees_with_the_definition(backend, b, t, d, n, g, state, resets, rest):
    arguments = inputs(
        b,
        t,
        d * max(g, 1),
        n,
        g,
        with_state=state,
        with_resets=resets,
        with_skip=rest,
        with_gate=rest,
        with_bias=rest,
    )
    expected = selective_scan(*arguments, softplus=True, backend="reference")
    for actual, value in zip(
        selective_scan(*arguments, softplus=True, backend=backend), expected, strict=True
    ):
        close(actual, value, 1e-9, backend)


@pytest.mark.compiled
@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("backend", FAST)
def test_compiles_without_a_break(backend, complex_):
    arguments = inputs(t=12, dtype=torch.float32, complex_=complex_)
    arguments = [x.requires_grad_() if x.is_floating_point() else x for x in arguments]

    def run(*x):
        y, last = selective_scan(*x, softplus=True, backend=backend)
        return torch.tanh(y).sum() + (last * last).sum()

    wanted = [x for x in arguments if x.is_floating_point()]
    expected = torch.autograd.grad(run(*arguments), wanted)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for actual, value in zip(torch.autograd.grad(compiled(*arguments), wanted), expected, strict=True):
        close(actual, value, 1e-5, backend)
