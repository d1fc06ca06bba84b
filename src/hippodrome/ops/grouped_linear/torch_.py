"""The grouped linear map in PyTorch: one product for each group that has rows, and none for the others.

Its two gradients are a map of the same kind by the transposed matrices and, for each group, the product of
the rows on both sides; each is the other's gradient, so they may be differentiated at will.
"""

from typing import Any

import torch
from torch import Tensor

from hippodrome.ops.linear import linear

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def grouped_linear(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """The outputs; arguments as at the door."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return _rows(x, weight, counts)


def _stretches(counts: Tensor, rows: int) -> list[tuple[int, int, int]]:
    """Group, first row and end of each group that is not empty."""
    sizes, found, first = counts.tolist(), [], 0
    if sum(sizes) != rows or min(sizes, default=0) < 0:
        raise ValueError(
            f"The rows of all groups must be the rows of x; got counts {sizes}, {sum(sizes)} in all, for "
            f"{rows} rows. Count how often each group stands in the sorted list of owners."
        )
    for group, size in enumerate(sizes):
        if size:
            found.append((group, first, first + size))
        first += size
    return found


@torch.library.custom_op("hippodrome::grouped_linear", mutates_args=())
def _rows(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    y = x.new_empty(x.shape[0], weight.shape[1])
    for group, first, end in _stretches(counts, x.shape[0]):
        # Of matrices in another precision those alone are converted that have rows.
        y[first:end] = linear(x[first:end], weight[group].to(x.dtype))
    return y


@_rows.register_fake
def _(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@torch.library.custom_op("hippodrome::grouped_linear_backward", mutates_args=())
def _matrices(a: Tensor, b: Tensor, counts: Tensor) -> Tensor:
    """sum over the rows r of each group of a_r b_r^T: (n, o) and (n, i) to (g, o, i)."""
    out = a.new_zeros(counts.shape[0], a.shape[1], b.shape[1])
    for group, first, end in _stretches(counts, a.shape[0]):
        torch.mm(a[first:end].T, b[first:end], out=out[group])
    return out


@_matrices.register_fake
def _(a: Tensor, b: Tensor, counts: Tensor) -> Tensor:
    return a.new_empty(counts.shape[0], a.shape[1], b.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _rows_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, weight, counts = ctx.saved_tensors
    for_x, for_weight, _ = ctx.needs_input_grad
    return (
        _rows(grad, weight.mT, counts) if for_x else None,
        _matrices(grad, x, counts) if for_weight else None,
        None,
    )


def _matrices_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    a, b, counts = ctx.saved_tensors
    for_a, for_b, _ = ctx.needs_input_grad
    return (
        _rows(b, grad, counts) if for_a else None,
        _rows(a, grad.mT, counts) if for_b else None,
        None,
    )


_rows.register_autograd(_rows_backward, setup_context=_keep)
_matrices.register_autograd(_matrices_backward, setup_context=_keep)
