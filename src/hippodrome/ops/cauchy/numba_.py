"""Cauchy product on the CPU: a custom op around the fused Numba kernels, which hold no table at all."""

from typing import Any

import torch
from torch import Tensor

from hippodrome.ops._custom import register_second_order
from hippodrome.ops._threads import run_tiles
from hippodrome.ops.cauchy import torch_

NAME = "numba"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take float32 and float64 on the CPU; half precision is widened at the door."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    return None


def _arrays(*tensors: Tensor) -> list[Any]:
    return [x.detach().contiguous().numpy() for x in tensors]


@torch.library.custom_op("hippodrome::cauchy_sums", mutates_args=())
def _forward(
    rows: Tensor, slope: Tensor, size: Tensor, size_rest: Tensor, w: Tensor, w_rest: Tensor
) -> Tensor:
    from hippodrome.ops.cauchy import _numba_kernel as kernel

    d, count, _ = rows.shape
    out = rows.new_empty(d, count, 2, w.shape[0])
    if out.numel():
        run_tiles(kernel.forward, d, *_arrays(rows, slope, size, size_rest, w, w_rest, out))
    return out


@_forward.register_fake
def _(rows, slope, size, size_rest, w, w_rest):  # type: ignore[no-untyped-def]
    return rows.new_empty(rows.shape[0], rows.shape[1], 2, w.shape[0])


@torch.library.custom_op("hippodrome::cauchy_sums_backward", mutates_args=())
def _backward(
    grad: Tensor,
    rows: Tensor,
    slope: Tensor,
    size: Tensor,
    size_rest: Tensor,
    w: Tensor,
    w_rest: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from hippodrome.ops.cauchy import _numba_kernel as kernel

    d, _, n = rows.shape
    g_rows, g_terms = rows.new_zeros(rows.shape), rows.new_zeros(d, n, 3)
    g_nodes = rows.new_zeros(d, 2, w.shape[0])
    if grad.numel():
        run_tiles(
            kernel.backward,
            d,
            *_arrays(grad, rows, slope, size, size_rest, w, w_rest, g_rows, g_terms, g_nodes),
        )
    of_w, of_rest = g_nodes.sum(0)
    # Copies, since outputs of an operator may not share memory, as columns of a single pole would.
    return g_rows, *(x.clone() for x in g_terms.unbind(-1)), of_w.clone(), of_rest.clone()


@_backward.register_fake
def _(grad, rows, slope, size, size_rest, w, w_rest):  # type: ignore[no-untyped-def]
    return tuple(rows.new_empty(x.shape) for x in (rows, slope, size, size_rest, w, w_rest))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    return _backward(grad, *ctx.saved_tensors)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, torch_.sums, outputs=1, inputs=6)


def cauchy(v: Tensor, w: Tensor, poles: Tensor) -> Tensor:
    """Arguments as at the door."""
    with torch.autocast(v.device.type, enabled=False):
        whole = torch_.terms(v, w, poles)
        return torch_.joined(_forward(*whole), whole.w).to(v.dtype)
