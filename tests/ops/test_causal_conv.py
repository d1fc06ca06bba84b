"""The causal convolution: its contract in every backend, other sizes, closed forms, compilation."""

import inspect
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from hippodrome.ops.causal_conv import BACKENDS, bytes_moved, causal_conv, flops
from hippodrome.ops.causal_conv.examples import inputs
from hippodrome.testing.ops import (
    CHECKS,
    check_float32,
    check_float64,
    check_op,
    check_resets,
    check_storage,
    check_threads,
    names,
)

NAMES = names(BACKENDS)
FAST = [name for name in NAMES if name != "reference"]


def same(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-9) -> None:
    assert actual.shape == expected.shape
    scale = expected.abs().max().item()
    assert (actual - expected).abs().max().item() <= tolerance * max(scale, 1e-300)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("backend", NAMES)
def test_contract(backend, activation, check):
    check_op(
        causal_conv, [backend], inputs, along_time=("x",), options={"activation": activation}, checks=[check]
    )


@pytest.mark.parametrize(
    "sizes", [{"d": 16, "w": 1}, {"d": 19, "w": 2}, {"b": 3, "d": 300, "w": 4}, {"d": 1, "w": 70}], ids=str
)
@pytest.mark.parametrize("backend", FAST)
def test_sizes_around_whole_registers_and_tiles(backend, sizes):
    check_op(
        causal_conv,
        [backend],
        partial(inputs, **sizes),
        along_time=("x",),
        options={"activation": "silu"},
        checks=[check_float64, check_float32, check_resets],
    )


@pytest.mark.parametrize("sizes", [{}, {"d": 16, "w": 1}, {"d": 50, "w": 3}], ids=str)
@pytest.mark.parametrize("activation", [None, "silu"])
def test_bfloat16_is_storage_alone(activation, sizes):
    check_op(
        causal_conv,
        ["numba"],
        partial(inputs, **sizes),
        along_time=("x",),
        options={"activation": activation},
        checks=[check_storage],
    )


def test_many_tiles_give_the_same_bits_on_any_number_of_threads():
    examples = partial(inputs, d=530)
    check_op(causal_conv, ["numba"], examples, along_time=("x",), checks=[check_threads])


def test_more_taps_than_there_is_a_kernel_for_are_refused():
    arguments = inputs(w=129, d=2)
    with pytest.raises(ValueError, match="up to 128 taps, and there are 129"):
        causal_conv(*arguments, backend="numba")
    for actual, value in zip(causal_conv(*arguments), causal_conv(*arguments, backend="torch"), strict=True):
        assert torch.equal(actual, value)


@pytest.mark.parametrize("t", [1, 2, 3, 4, 130])
@pytest.mark.parametrize("backend", NAMES)
def test_it_is_a_padded_depthwise_convolution(backend, t):
    x, weight, bias, state, _ = inputs(t=t, d=17)
    y, last = causal_conv(x, weight, bias, state, activation="silu", backend=backend)
    full = torch.cat([state, x], 1)
    expected = F.silu(F.conv1d(full.transpose(1, 2), weight[:, None], bias, groups=17))
    same(y, expected.transpose(1, 2))
    same(last, full[:, -3:])


@pytest.mark.parametrize("backend", NAMES)
def test_the_last_tap_alone_passes_the_current_token(backend):
    x, weight, *_ = inputs()
    only = torch.zeros_like(weight)
    only[:, -1] = 1.0
    y, _ = causal_conv(x, only, backend=backend)
    same(y, x)


@pytest.mark.parametrize("backend", NAMES)
def test_a_reset_hides_the_past_from_all_taps_and_from_the_state(backend):
    x, weight, bias, state, _ = inputs(b=1, t=6, d=2)
    resets = torch.zeros(1, 6, dtype=torch.bool)
    resets[0, 4] = True
    spoiled = x.clone()
    spoiled[:, :4] = torch.nan
    y, last = causal_conv(spoiled, weight, bias, state, resets, backend=backend)
    fresh, _ = causal_conv(x[:, 4:], weight, bias, backend=backend)
    same(y[:, 4:], fresh)
    same(last, torch.cat([torch.zeros(1, 1, 2, dtype=x.dtype), x[:, 4:]], 1))


def test_wrong_arguments_are_refused_with_a_sentence():
    x, weight, bias, state, resets = inputs()
    unchecked = inspect.unwrap(causal_conv)  # as users call it: without the shape checks of the test run
    with pytest.raises(ValueError, match="weight must have the axes"):
        unchecked(x, weight[:-1])
    with pytest.raises(ValueError, match="initial_state must have the axes"):
        unchecked(x, weight, bias, state[:, :-1], resets)
    with pytest.raises(ValueError, match="activation must be None or 'silu'"):
        unchecked(x, weight, activation="relu")


def test_costs():
    assert flops(2, 3, 5, 4) == 240
    assert bytes_moved(1, 10, 2, 4) == 4 * ((20 + 6) * 2 + 2 * 5)


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("compiler", "backend"), [("aot_eager", "torch"), ("aot_eager", "numba"), ("inductor", "numba")]
)
def test_compiles_without_a_break(compiler, backend):
    arguments = [
        z.requires_grad_() if z.is_floating_point() else z for z in inputs(t=40, dtype=torch.float32)
    ]

    def run(*z):
        y, last = causal_conv(*z, activation="silu", backend=backend)
        return torch.tanh(y).sum() + (last * last).sum()

    wanted = [z for z in arguments if z.is_floating_point()]
    expected = torch.autograd.grad(run(*arguments), wanted)
    compiled = torch.compile(run, fullgraph=True, backend=compiler)
    for actual, value in zip(torch.autograd.grad(compiled(*arguments), wanted), expected, strict=True):
        same(actual, value, 1e-5)


@pytest.mark.compiled
@pytest.mark.parametrize("backend", FAST)
def test_exports_with_a_length_left_open(backend):
    class Module(torch.nn.Module):
        def forward(self, x, weight, bias):
            return causal_conv(x, weight, bias, activation="silu", backend=backend)

    t = torch.export.Dim("t", min=2, max=512)
    shapes = {"x": {1: t}, "weight": None, "bias": None}
    program = torch.export.export(Module(), inputs(t=24)[:3], dynamic_shapes=shapes)
    longer = inputs(t=2)[:3]
    expected = causal_conv(*longer, activation="silu", backend="reference")
    for actual, value in zip(program.module()(*longer), expected, strict=True):
        same(actual, value)
