"""The linear map of few rows: every backend against its definition, and when the kernel stands back."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.ops._door import watching
from hippodrome.ops.linear import BACKENDS, linear, numba_, onednn_
from hippodrome.ops.linear.examples import inputs
from hippodrome.testing._op_case import recording, slice_of_wider, transposed
from hippodrome.testing.ops import DOUBLE, HALF, SINGLE, close

NAMES = [backend.NAME for backend in BACKENDS if backend is not onednn_]


@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, DOUBLE), (torch.float32, SINGLE), (torch.bfloat16, HALF)]
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [(2, 37, 21), (1, 1, 1), (4, 48, 16), (1, 15, 9), (3, 160, 7)])
def test_values(backend, dtype, tolerance, bias, sizes):
    arguments = inputs(*sizes, dtype=dtype, bias=bias)
    y = linear(*arguments, backend=backend)
    assert y.dtype == dtype
    close(y, linear(*arguments, backend="reference"), tolerance, backend)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(1, 2), max_size=2), i=st.integers(1, 70), o=st.integers(1, 40))
def test_any_shape(rows, i, o):
    _, weight, bias = inputs(1, i, o)
    x = torch.randn(*rows, i, dtype=torch.float64)
    y = linear(x, weight, bias, backend="numba")
    close(y, F.linear(x, weight, bias), 1e-12, "numba")


@pytest.mark.parametrize("lay", [slice_of_wider, transposed])
def test_tensors_of_any_strides(lay):
    x, weight, bias = inputs(dtype=torch.float32)
    expected = F.linear(x, weight, bias)
    close(linear(lay(x), weight, lay(bias), backend="numba"), expected, SINGLE, "x and bias")
    # A weight whose rows are not dense is PyTorch's to read.
    close(linear(lay(x), lay(weight), bias), expected, SINGLE, "all")


def test_large_weights_are_shared_by_threads_and_give_the_same_bits():
    arguments = inputs(2, 1030, 2050, dtype=torch.float32)
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            seen.append(linear(*arguments, backend="numba"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    close(seen[0], F.linear(*arguments), SINGLE, "numba")


def test_gradients_go_through_pytorch():
    x, weight, bias = (v.requires_grad_() for v in inputs())
    linear(x, weight, bias).sum().backward()
    assert x.grad is not None
    assert weight.grad is not None
    with pytest.raises(ValueError, match="has no gradient"):
        linear(x, weight, bias, backend="numba")


def test_what_the_kernel_leaves_to_pytorch():
    x, weight, bias = inputs(dtype=torch.float32)
    for wrong, sentence in (
        ((torch.randn(5, 37), weight, bias), "1 to 4 rows"),
        ((x[:0], weight, bias), "1 to 4 rows"),
        ((x.half(), weight.half(), None), "float32, bfloat16 and float64"),
        ((x, weight.bfloat16(), None), "all alike"),
        ((x, weight.T, None), "dense rows"),
        ((x, weight, bias[:3]), "bias must be"),
        ((x.to("meta"), weight, bias), "runs on the CPU"),
    ):
        assert sentence in str(numba_.refusal(*wrong))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    y = torch.func.vmap(linear, (0, None, None))(x, weight, bias)
    close(y, F.linear(x, weight, bias), SINGLE, "vmap")


def test_registration():
    with recording() as calls, torch.no_grad():
        linear(*inputs(dtype=torch.float32))
    assert len(calls) == 1
    for operator, arguments, keywords in calls.values():
        torch.library.opcheck(operator, arguments, keywords)


def test_nan_shows():
    for i in range(3):
        arguments = inputs(dtype=torch.float32)
        arguments[i].view(-1)[0] = torch.nan
        assert linear(*arguments, backend="numba").isnan().any()


def large(rows=96, i=160, o=144, dtype=torch.float32, bias=True):
    return inputs(rows, i, o, dtype=dtype, bias=bias)


needs_onednn = pytest.mark.skipif(
    onednn_.refusal(*large()) is not None, reason=f"on this machine: {onednn_.refusal(*large())}"
)


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [(96, 160, 144), (1000, 70, 33), (64, 33, 1000), (2050, 48, 37)])
def test_many_rows_and_their_gradients(sizes, bias):
    arguments = large(*sizes, bias=bias)
    assert recorded(*arguments) == ["onednn"]
    leaves = [x if x is None else x.clone().requires_grad_() for x in arguments]
    exact = [x if x is None else x.double().requires_grad_() for x in arguments]
    y, expected = linear(*leaves), F.linear(*exact)
    close(y, expected, SINGLE, "y")
    weights = torch.randn(expected.shape)
    y.backward(weights)
    expected.backward(weights.double())
    for a, b in zip(leaves, exact, strict=True):
        if a is not None:
            close(a.grad, b.grad, SINGLE, str(tuple(a.shape)))


@needs_onednn
@pytest.mark.parametrize("lay", [slice_of_wider, transposed])
def test_many_rows_of_any_strides(lay):
    x, weight, bias = large()
    y = linear(lay(x), lay(weight), lay(bias), backend="onednn")
    close(y, F.linear(x.double(), weight.double(), bias.double()), SINGLE, "onednn")
    x = x.view(2, 3, 16, 160).transpose(0, 1)
    close(linear(x, weight, bias), F.linear(x.double(), weight.double(), bias.double()), SINGLE, "axes")


@needs_onednn
def test_gradients_of_many_rows_are_differentiable():
    x, weight, _ = large()

    def penalty(product, x, weight):
        (grad,) = torch.autograd.grad(product(x, weight).square().sum(), x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), (x, weight))

    found = penalty(linear, *(z.clone().requires_grad_() for z in (x, weight)))
    expected = penalty(F.linear, *(z.double().requires_grad_() for z in (x, weight)))
    for a, b in zip(found, expected, strict=True):
        close(a, b, 4 * SINGLE, "second order")


@needs_onednn
def test_many_rows_give_the_same_bits_run_to_run():
    arguments = [x.requires_grad_() for x in large(1000, 300, 200)]
    runs = []
    for _ in range(3):
        y = linear(*arguments)
        runs.append([y, *torch.autograd.grad(y.square().sum(), arguments)])
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("shape", [(1, 1), (5, 17), (16, 16), (33, 70), (64, 1), (100, 300)])
def test_turning_a_matrix_over(shape):
    for wider in (0, 3):
        x = torch.randn(shape[0], shape[1] + wider)[:, : shape[1]]
        assert torch.equal(onednn_._turned(x.T), x.T)


def test_what_onednn_leaves_to_others():
    x, weight, bias = large()
    assert "float32" in onednn_.refusal(x.double(), weight.double(), bias.double())
    assert "small" in onednn_.refusal(x[:2], weight, bias)
    assert "(o, i)" in onednn_.refusal(x, weight[:, :-1], bias)
    assert "bias must be" in onednn_.refusal(x, weight, bias[1:])
    with torch.autocast("cpu", torch.bfloat16):
        assert "autocast" in onednn_.refusal(x, weight, bias)
        assert linear(x, weight, bias).dtype == torch.bfloat16


def recorded(*arguments):
    with watching() as choices:
        linear(*arguments)
    return [choice.backend for choice in choices]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_row_gives_the_same_bits_in_any_company(dtype):
    x, weight, bias = inputs(r=4, i=203, o=37, dtype=dtype)
    with torch.no_grad():
        for count in (2, 3, 4):
            together = linear(x[:count], weight, bias, backend="numba")
            for row, y in zip(x, together, strict=False):
                assert torch.equal(linear(row[None], weight, bias, backend="numba")[0], y)
