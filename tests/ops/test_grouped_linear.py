"""The grouped linear map: values, gradients of any order, empty groups, one row, and whole graphs."""

import pytest
import torch

from hippodrome.ops.grouped_linear import BACKENDS, flops, grouped_linear
from hippodrome.ops.grouped_linear.examples import inputs
from hippodrome.testing._op_case import slice_of_wider, transposed
from hippodrome.testing.ops import DOUBLE, HALF, SINGLE, close

NAMES = [backend.NAME for backend in BACKENDS]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, DOUBLE), (torch.float32, SINGLE), (torch.bfloat16, HALF)]
)
@pytest.mark.parametrize("sizes", [(12, 5, 7, 6), (1, 3, 4, 2), (9, 1, 3, 3), (40, 30, 8, 16)])
def test_values(dtype, tolerance, sizes):
    arguments = inputs(*sizes, dtype=dtype)
    y = grouped_linear(*arguments, backend="torch")
    assert y.dtype == dtype
    close(y, grouped_linear(*arguments, backend="reference"), tolerance, "torch")


@pytest.mark.parametrize("backend", NAMES)
def test_it_is_each_rows_own_matrix(backend):
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    weight = torch.stack([torch.eye(2), torch.full((2, 2), float("nan")), 10 * torch.eye(2)])
    y = grouped_linear(x, weight, torch.tensor([1, 0, 2]), backend=backend)
    # The matrix of the empty group is not read.
    assert y.tolist() == [[1.0, 2.0], [30.0, 40.0], [50.0, 60.0]]
    assert grouped_linear(x[:0], weight, torch.zeros(3, dtype=torch.long), backend=backend).shape == (0, 2)


def test_gradients_and_their_gradients():
    x, weight, counts = inputs(5, 3, 2, 3)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: grouped_linear(a, b, counts), (x, weight))
    assert torch.autograd.gradgradcheck(lambda a, b: grouped_linear(a, b, counts), (x, weight))
    (grad,) = torch.autograd.grad(grouped_linear(x, weight, counts).sum(), weight)
    assert (grad[1] == 0).all()


def test_it_is_registered():
    x, weight, counts = inputs()
    operators, y = torch.ops.hippodrome, grouped_linear(x, weight, counts)
    # That graphs of it are whole the contract of the mixer and the exported program show.
    some = ("test_schema", "test_autograd_registration", "test_faketensor")
    x, weight = x.requires_grad_(), weight.requires_grad_()
    torch.library.opcheck(operators.grouped_linear.default, (x, weight, counts), test_utils=some)
    torch.library.opcheck(operators.grouped_linear_backward.default, (x, y, counts), test_utils=some)


@pytest.mark.parametrize("lay", [slice_of_wider, transposed])
def test_tensors_of_any_strides(lay):
    x, weight, counts = inputs(dtype=torch.float32)
    close(grouped_linear(lay(x), lay(weight), counts), grouped_linear(x, weight, counts), SINGLE, "strides")


def test_autocast_is_honoured():
    x, weight, counts = inputs(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = grouped_linear(x, weight, counts)
    assert y.dtype == torch.bfloat16
    close(y, grouped_linear(x, weight, counts), HALF, "autocast")
    weight = weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        (grad,) = torch.autograd.grad(grouped_linear(x, weight, counts).sum(), weight)
    assert grad.dtype == torch.float32
    (exact,) = torch.autograd.grad(grouped_linear(x, weight, counts).sum(), weight)
    close(grad, exact, HALF, "autocast, gradient")


def test_counts_that_are_not_the_rows():
    x, weight, counts = inputs()
    with pytest.raises(ValueError, match="must be the rows of x"):
        grouped_linear(x[1:], weight, counts)
    with pytest.raises(ValueError, match="no backend 'numba'"):
        grouped_linear(x, weight, counts, backend="numba")


def test_the_count_of_arithmetic_knows_no_groups():
    assert flops(3, 5, 7) == 2 * 3 * 5 * 7
