"""SSD: its contract in every backend, published fixtures, closed forms, the matrix form, compilation."""

import inspect
import math
from functools import partial

import pytest
import torch
from torch import Tensor

from hippodrome.ops.ssd import BACKENDS, bytes_moved, flops, ssd, ssd_packed
from hippodrome.ops.ssd.examples import inputs
from hippodrome.testing._op_case import OpCase, leaf, pull, recording
from hippodrome.testing.ops import (
    CHECKS,
    check_chunks_join,
    check_double_backward,
    check_float32,
    check_float64,
    check_gradcheck,
    check_op,
    check_registration,
    names,
)

NAMES = names(BACKENDS)
FAST = [name for name in NAMES if name != "reference"]
ALONG_TIME = ("x", "dt", "B", "C")


def wave(shape: tuple[int, ...], k: float) -> Tensor:
    """sin(k (i + 1)) over the row-major index i."""
    return torch.sin(k * torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)).view(shape)


def same(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    scale = expected.abs().max().item()
    assert (actual - expected).abs().max().item() <= tolerance * max(scale, 1e-300)


@pytest.mark.parametrize(
    "check", [c for c in CHECKS if c is not check_registration], ids=lambda c: c.__name__
)
@pytest.mark.parametrize("chunk", [16, 64])
@pytest.mark.parametrize("backend", NAMES)
def test_contract(backend, chunk, check):
    sizes = {"b": 1, "h": 2, "p": 2, "n": 3, "g": 1} if check is check_gradcheck else {}
    examples = partial(inputs, **sizes)
    check_op(ssd, [backend], examples, along_time=ALONG_TIME, options={"chunk": chunk}, checks=[check])


@pytest.mark.parametrize("operator", [0, 1], ids=["forward", "backward"])
def test_registration(operator):
    """``opcheck``, but for tracing the double backward with every size a symbol: minutes of algebra."""
    case = OpCase(ssd, "numba", inputs, ALONG_TIME, {"chunk": 16})
    leaves = tuple(leaf(z) for z in case.arguments(4))
    with recording() as calls:
        pull(leaves, case.run(leaves), case.names)
    op, arguments, keywords = list(calls.values())[operator]
    tests = ["test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static"]
    torch.library.opcheck(op, tuple(leaf(z) for z in arguments), keywords, test_utils=tests)
    if operator == 0:
        torch.library.opcheck(
            op, tuple(leaf(z) for z in arguments), keywords, test_utils="test_aot_dispatch_dynamic"
        )


@pytest.mark.parametrize(
    "sizes",
    [
        {"h": 2, "g": 1, "p": 16, "n": 16},
        {"h": 3, "g": 3, "p": 20, "n": 9},
        {"h": 12, "g": 2, "p": 1, "n": 1},
        {"b": 3, "h": 9, "g": 1, "p": 40, "n": 33},
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", FAST)
def test_sizes_around_whole_registers(backend, sizes):
    check_op(
        ssd, [backend], partial(inputs, **sizes), along_time=ALONG_TIME, checks=[check_float64, check_float32]
    )


@pytest.mark.parametrize("chunk", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("state", [0.0, 3.0])
@pytest.mark.parametrize("backend", NAMES)
def test_decay_of_one_half_gives_the_geometric_series(backend, state, chunk):
    t = 11
    ones = torch.ones(1, t, 1, 1, dtype=torch.float64)
    dt = torch.full((1, t, 1), math.log(2.0), dtype=torch.float64)
    A = torch.tensor([-1.0], dtype=torch.float64)
    first = torch.full((1, 1, 1, 1), state, dtype=torch.float64)
    y, last = ssd(ones, dt, A, ones, ones, None, first, chunk=chunk, backend=backend)
    half = 0.5 ** torch.arange(1, t + 1, dtype=torch.float64)
    same(y.flatten(), 2 * math.log(2.0) * (1 - half) + state * half)
    same(last.flatten(), y.flatten()[-1:])


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("backend", NAMES)
def test_two_heads_of_eight_steps(backend, chunk):
    x = wave((1, 8, 2, 1), 0.7)
    dt = 0.5 * (1 + wave((1, 8, 2), 1.3))
    A = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    B, C = wave((1, 8, 1, 2), 0.3), wave((1, 8, 1, 2), 0.9)
    state = torch.ones(1, 2, 1, 2, dtype=torch.float64)
    y, last = ssd(x, dt, A, B, C, None, state, chunk=chunk, backend=backend)
    expected = [
        [1.1525119608, 0.9695124370],
        [-0.0821760320, -0.0865960670],
        [-0.2601404739, 1.3890324795],
        [-0.2730229500, -0.5547924947],
        [-0.5551898945, -0.0191010303],
        [0.6800583328, 0.2684210974],
        [0.2235175261, -0.0068080062],
        [0.8886457677, 1.6368442292],
    ]
    same(y[0, :, :, 0], torch.tensor(expected, dtype=torch.float64), 1e-9)
    held = [[0.5483112812, 0.4638513870], [0.9237546172, 0.9261507292]]
    same(last[0, :, 0], torch.tensor(held, dtype=torch.float64), 1e-9)


@pytest.mark.parametrize("backend", NAMES)
def test_without_decay_it_is_causal_linear_attention(backend):
    x, _, _, B, C, *_ = inputs(t=50)
    dt, A = x.new_ones(x.shape[:3]), x.new_zeros(x.shape[2])
    y, last = ssd(x, dt, A, B, C, chunk=16, backend=backend)
    B, C = (m.repeat_interleave(2, 2) for m in (B, C))
    scores = torch.einsum("bihn,bjhn->bhij", C, B).tril()
    same(y, torch.einsum("bhij,bjhp->bihp", scores, x))
    same(last, torch.einsum("bjhp,bjhn->bhpn", x, B))


@pytest.mark.parametrize("chunk", [7, 64])
@pytest.mark.parametrize("backend", NAMES)
def test_it_is_one_lower_triangular_matrix(backend, chunk):
    x, dt, A, B, C, *_ = inputs(t=75)
    t = x.shape[1]
    B, C = (m.repeat_interleave(2, 2) for m in (B, C))
    decay = torch.zeros(*dt.shape[::2], t, t, dtype=torch.float64)
    for i in range(t):
        for j in range(i + 1):
            decay[..., i, j] = torch.exp((dt * A)[:, j + 1 : i + 1].sum(1))
    matrix = decay * torch.einsum("bihn,bjhn->bhij", C, B)
    y, _ = ssd(x, dt, A, B, C, chunk=chunk, backend=backend)
    same(y, torch.einsum("bhij,bjhp->bihp", matrix, dt[..., None] * x))


@pytest.mark.parametrize("backend", FAST)
def test_a_strong_decay_neither_overflows_nor_cancels(backend):
    x, dt, A, B, C, D, state, _ = inputs(t=70)
    dt = dt.clone()
    dt[:, 20:23] = 400.0
    dt[:, 50] = torch.inf
    arguments = [z.clone().requires_grad_() for z in (x, dt, A, B, C, D, state)]
    arguments[1] = dt.clamp(max=2000.0).requires_grad_()
    y, last = ssd(*arguments, backend=backend)
    expected, expected_last = ssd(*[z.detach() for z in arguments], backend="reference")
    same(y, expected)
    same(last, expected_last)
    for gradient in torch.autograd.grad(y.sum() + last.sum(), arguments):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("backend", FAST)
def test_views_into_one_wide_projection(backend):
    b, t, h, p, g, n = 2, 30, 4, 3, 2, 5
    wide = torch.randn(b, t, h * p + 2 * g * n, dtype=torch.float64)
    x, B, C = wide.split([h * p, g * n, g * n], -1)
    x, B, C = x.unflatten(-1, (h, p)), B.unflatten(-1, (g, n)), C.unflatten(-1, (g, n))
    _, dt, A, *_ = inputs(b, t, h, p, n, g)
    y, last = ssd(x, dt, A, B, C, backend=backend)
    expected, expected_last = ssd(x, dt, A, B, C, backend="reference")
    same(y, expected)
    same(last, expected_last)


@pytest.mark.parametrize("chunk", [2, 4])
def test_states_kept_between_segments_join_them(chunk):
    """Beyond sixteen chunks the backward begins anew from states that the forward left."""
    checks = [check_float64, check_float32, check_chunks_join]
    check_op(ssd, ["numba"], inputs, along_time=ALONG_TIME, options={"chunk": chunk}, checks=checks)


def packed(x, dt, A, B, C, D=None, initial_state=None, resets=None, *, chunk=64, backend=None):
    """``ssd_packed`` under the signature of ``ssd``."""
    mixed = torch.cat([x.flatten(2), B.flatten(2), C.flatten(2)], -1)
    groups, n = B.shape[2:]
    return ssd_packed(
        mixed, dt, A, D, initial_state, resets, groups=groups, d_state=n, chunk=chunk, backend=backend
    )


@pytest.mark.parametrize("backend", FAST)
def test_packed_arguments_give_the_same(backend):
    checks = [check_float64, check_float32, check_gradcheck, check_double_backward]
    examples = partial(inputs, b=1, h=2, p=2, n=3, g=1)
    check_op(packed, [backend], examples, along_time=ALONG_TIME, options={"chunk": 4}, checks=checks)


def test_packed_arguments_must_divide_into_heads():
    x, dt, A, B, C, *_ = inputs()
    mixed = torch.cat([x.flatten(2), B.flatten(2), C.flatten(2)], -1)
    with pytest.raises(ValueError, match="must divide into the 4 heads"):
        ssd_packed(mixed[..., 1:], dt, A, groups=2, d_state=5)


def activations(arguments, dtype):
    """x, B and C in ``dtype``, the rest as it is: what a layer under autocast hands over."""
    return tuple(z.to(dtype) if i in (0, 3, 4) else z for i, z in enumerate(arguments))


def test_bfloat16_is_rounded_once_on_the_way_out():
    """Against the definition on the same rounded numbers: half a unit in the last place, and float32."""
    arguments = activations(inputs(t=150, p=20, n=17, dtype=torch.float32), torch.bfloat16)
    wide = tuple(z.double() if z.is_floating_point() else z for z in arguments)
    r = torch.Generator().manual_seed(1)
    pulls = [torch.randn(z.shape, generator=r).bfloat16() for z in (arguments[0],)]
    pulls.append(torch.randn(arguments[6].shape, generator=r))

    def run(arguments, backend, pulls):
        leaves = [leaf(z) for z in arguments]
        outputs = ssd(*leaves, chunk=16, backend=backend)
        wanted = [z for z in leaves if z.is_floating_point()]
        return [*outputs, *torch.autograd.grad(outputs, wanted, pulls)]

    actual = run(arguments, "numba", pulls)
    expected = run(wide, "reference", [z.double() for z in pulls])
    stored = [arguments[0], arguments[6], *(z for z in arguments if z.is_floating_point())]
    for z, value, like in zip(actual, expected, stored, strict=True):
        assert z.dtype == like.dtype
        half = z.dtype == torch.bfloat16
        room = value.abs() / 256 if half else torch.zeros_like(value)
        assert ((z - value).abs() <= room + 1e-5 * value.abs().max()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_bits_whatever_the_threads_and_run_to_run(dtype):
    arguments = activations(inputs(b=2, t=300, h=12, p=20, n=17, g=2, dtype=torch.float32), dtype)
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            leaves = [leaf(z) for z in arguments]
            outputs = ssd(*leaves, chunk=8, backend="numba")
            wanted = [z for z in leaves if z.is_floating_point()]
            seen.append([*outputs, *torch.autograd.grad(outputs, wanted, [z.detach() for z in outputs])])
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert all(torch.equal(z, value) for z, value in zip(other, seen[0], strict=True))


def test_wrong_arguments_are_refused_with_a_sentence():
    x, dt, A, B, C, D, state, resets = inputs()
    unchecked = inspect.unwrap(ssd)  # as users call it: without the shape checks of the test run
    with pytest.raises(ValueError, match="dt must have the axes"):
        unchecked(x, dt[:, :-1], A, B, C)
    with pytest.raises(ValueError, match="must divide the heads"):
        ssd(x[:, :, :3], dt[:, :, :3], A[:3], B, C)
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        ssd(x, dt, A, B, C, chunk=0)
    with pytest.raises(ValueError, match="no backend 'cuda'"):
        ssd(x, dt, A, B, C, D, state, resets, backend="cuda")


def test_costs_count_what_the_chunks_do():
    assert flops(1, 64, 1, 1, 1) == 64 * (2 * 64 + 2 * 64 + 2 * 2)
    assert bytes_moved(1, 2, 1, 1, 1) == 4 * (2 * (2 + 1 + 2) + 2)


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("compiler", "backend"), [("aot_eager", "torch"), ("aot_eager", "numba"), ("inductor", "numba")]
)
def test_compiles_without_a_break(compiler, backend):
    arguments = [
        z.requires_grad_() if z is not None and z.is_floating_point() else z
        for z in inputs(t=40, dtype=torch.float32)
    ]

    def run(*z):
        y, last = ssd(*z, chunk=16, backend=backend)
        return torch.tanh(y).sum() + last.sum()

    wanted = [z for z in arguments if z.is_floating_point()]
    expected = torch.autograd.grad(run(*arguments), wanted)
    compiled = torch.compile(run, fullgraph=True, backend=compiler)
    for actual, value in zip(torch.autograd.grad(compiled(*arguments), wanted), expected, strict=True):
        same(actual, value, 1e-5)


@pytest.mark.compiled
@pytest.mark.parametrize("backend", FAST)
def test_exports_with_a_length_left_open(backend):
    class Module(torch.nn.Module):
        def forward(self, x, dt, A, B, C):
            return ssd(x, dt, A, B, C, chunk=8, backend=backend)

    t = torch.export.Dim("t", min=2, max=512)
    shapes = {"x": {1: t}, "dt": {1: t}, "A": None, "B": {1: t}, "C": {1: t}}
    program = torch.export.export(Module(), inputs(t=24)[:5], dynamic_shapes=shapes)
    longer = inputs(t=53)[:5]
    for actual, value in zip(program.module()(*longer), ssd(*longer, backend="reference"), strict=True):
        same(actual, value)
