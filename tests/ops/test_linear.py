"""The linear map of few rows: every backend against its definition, and when the kernel stands back."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.ops.linear import BACKENDS, linear, numba_
from hippodrome.ops.linear.examples import inputs
from hippodrome.testing._op_case import recording, slice_of_wider, transposed
from hippodrome.testing.ops import DOUBLE, HALF, SINGLE, close

NAMES = [backend.NAME for backend in BACKENDS]


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
