"""The root-mean-square norm: its contract in every backend, plain and gated, shapes, compilation."""

import inspect
from functools import partial

import pytest
import torch

from hippodrome.ops.rms_norm import BACKENDS, bytes_moved, flops, rms_norm
from hippodrome.ops.rms_norm.examples import inputs
from hippodrome.testing.ops import CHECKS, check_bfloat16, check_float32, check_float64, check_op

NAMES = [backend.NAME for backend in BACKENDS if backend.NAME != "triton"]
FAST = [name for name in NAMES if name != "reference"]


def same(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-9) -> None:
    assert actual.shape == expected.shape
    scale = expected.abs().max().item()
    assert (actual - expected).abs().max().item() <= tolerance * max(scale, 1e-300)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("backend", NAMES)
def test_contract(backend, groups, check):
    options = {"groups": groups, "eps": 1e-3}
    check_op(rms_norm, [backend], inputs, along_time=("x", "z"), options=options, checks=[check])


@pytest.mark.parametrize(
    ("d", "groups"), [(1, 1), (16, 1), (19, 1), (32, 2), (40, 2), (64, 4), (300, 3), (768, 1)]
)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("backend", FAST)
def test_sizes_around_whole_registers(backend, gated, d, groups):
    check_op(
        rms_norm,
        [backend],
        partial(inputs, d=d, gated=gated),
        along_time=("x", "z"),
        # One channel alone is normed to its sign but for eps, which must not vanish beside it.
        options={"groups": groups, "eps": 1.0},
        checks=[check_float64, check_float32, check_bfloat16],
    )


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 4, 5), (0, 5), (2, 0, 5)], ids=str)
@pytest.mark.parametrize("backend", NAMES)
def test_any_number_of_axes_stands_before_the_channels(backend, shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    y = rms_norm(x, weight, eps=0.1, backend=backend)
    same_or_empty = weight * x / ((x**2).mean(-1, keepdim=True) + 0.1).sqrt()
    torch.testing.assert_close(y, same_or_empty, rtol=1e-12, atol=1e-12)
    for actual, value in zip(
        torch.autograd.grad(y.sum(), (x, weight)),
        torch.autograd.grad(same_or_empty.sum(), (x, weight)),
        strict=True,
    ):
        torch.testing.assert_close(actual, value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", NAMES)
def test_it_forgets_the_scale_of_its_input_and_has_unit_mean_square(backend):
    x, _, z = inputs(dtype=torch.float64)
    ones = torch.ones(6, dtype=torch.float64)
    y = rms_norm(x, ones, z, eps=0.0, backend=backend)
    same((y**2).mean(-1), torch.ones(2, 37, dtype=torch.float64))
    same(rms_norm(1e3 * x, ones, z, eps=0.0, backend=backend), y)


@pytest.mark.parametrize("backend", NAMES)
def test_half_precision_squares_in_float32(backend):
    # Squares of 3e4 leave float16; their mean must not.
    x, weight = torch.full((2, 8), 3e4, dtype=torch.float16), torch.ones(8, dtype=torch.float16)
    y = rms_norm(x, weight, backend=backend)
    assert y.dtype == torch.float16
    same(y.float(), torch.ones(2, 8), 1e-3)


def test_bfloat16_keeps_the_weights_gradient_in_float32():
    x, weight, z = inputs(t=500, d=48, dtype=torch.float32)
    leaves = [x.bfloat16().requires_grad_(), weight.requires_grad_(), z.bfloat16().requires_grad_()]
    grads = {
        name: torch.autograd.grad(rms_norm(*leaves, backend=name).float().sum(), leaves)
        for name in ("numba", "reference")
    }
    assert [g.dtype for g in grads["numba"]] == [torch.bfloat16, torch.float32, torch.bfloat16]
    same(grads["numba"][1], grads["reference"][1], 1e-5)


def test_wrong_arguments_are_refused_with_a_sentence():
    x, weight, z = inputs()
    unchecked = inspect.unwrap(rms_norm)  # as users call it: without the shape checks of the test run
    with pytest.raises(ValueError, match="weight must have the axes"):
        unchecked(x, weight[:-1])
    with pytest.raises(ValueError, match="z must have the axes"):
        unchecked(x, weight, z[:, :-1])
    with pytest.raises(ValueError, match="got 4 groups for d = 6"):
        unchecked(x, weight, z, groups=4)


def test_costs():
    assert flops(3, 5) == 60
    assert flops(3, 5, gated=True) == 135
    assert bytes_moved(3, 5) == 4 * 35
    assert bytes_moved(3, 5, gated=True, item=2) == 2 * 50


@pytest.mark.compiled
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("compiler", "backend"), [("aot_eager", "torch"), ("aot_eager", "numba"), ("inductor", "numba")]
)
def test_compiles_without_a_break(compiler, backend, gated):
    found = inputs(t=40, dtype=torch.float32, gated=gated)
    wanted = [v.requires_grad_() for v in found if v is not None]

    def run(*v):
        return torch.tanh(rms_norm(*v, groups=2, backend=backend)).sum()

    expected = torch.autograd.grad(run(*found), wanted)
    compiled = torch.compile(run, fullgraph=True, backend=compiler)
    for actual, value in zip(torch.autograd.grad(compiled(*found), wanted), expected, strict=True):
        same(actual, value, 1e-5)


@pytest.mark.compiled
@pytest.mark.parametrize("backend", FAST)
def test_exports_with_a_length_left_open(backend):
    class Module(torch.nn.Module):
        def forward(self, x, weight, z):
            return rms_norm(x, weight, z, groups=2, backend=backend)

    t = torch.export.Dim("t", min=2, max=512)
    program = torch.export.export(
        Module(), inputs(t=24), dynamic_shapes={"x": {1: t}, "weight": None, "z": {1: t}}
    )
    longer = inputs(t=2)
    same(program.module()(*longer), rms_norm(*longer, groups=2, backend="reference"))
