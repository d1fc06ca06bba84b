"""Linear scan on the CPU: custom ops around the fused Numba kernels."""

from typing import Any

import torch
from torch import Tensor

from hippodrome.ops._custom import register_second_order
from hippodrome.ops._threads import run_tiles
from hippodrome.ops.linear_scan import torch_

NAME = "numba"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take float32 and float64 on the CPU; half precision is widened at the door."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    return None


def _arrays(*tensors: Tensor) -> list[Any]:
    return [x.contiguous().numpy() for x in tensors]


@torch.library.custom_op("hippodrome::linear_scan", mutates_args=())
def _forward(a: Tensor, x: Tensor, state: Tensor, resets: Tensor) -> tuple[Tensor, Tensor]:
    from hippodrome.ops.linear_scan import _numba_kernel as kernel

    h, last = x.new_empty(x.shape), x.new_empty(state.shape)
    if h.numel():
        run_tiles(
            kernel.forward_constant if a.dim() == 1 else kernel.forward,
            x.shape[0] * kernel.blocks(x.shape[2]),
            *_arrays(a, x, state, resets, h, last),
        )
    return h, last


@_forward.register_fake
def _(a: Tensor, x: Tensor, state: Tensor, resets: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(state.shape)


@torch.library.custom_op("hippodrome::linear_scan_backward", mutates_args=())
def _backward(
    grad_h: Tensor, grad_last: Tensor, a: Tensor, x: Tensor, state: Tensor, resets: Tensor, h: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    from hippodrome.ops.linear_scan import _numba_kernel as kernel

    constant = a.dim() == 1
    grad_a = x.new_zeros(state.shape) if constant else x.new_empty(x.shape)
    grad_x, grad_state = x.new_empty(x.shape), x.new_empty(state.shape)
    if x.numel():
        run_tiles(
            kernel.backward_constant if constant else kernel.backward,
            x.shape[0] * kernel.blocks(x.shape[2]),
            *_arrays(a, state, resets, h, grad_h, grad_last, grad_a, grad_x, grad_state),
        )
    return sum_rows(grad_a) if constant else grad_a, grad_x, grad_state


@_backward.register_fake
def _(grad_h, grad_last, a, x, state, resets, h):  # type: ignore[no-untyped-def]
    return x.new_empty(a.shape), x.new_empty(x.shape), x.new_empty(state.shape)


def sum_rows(parts: Tensor) -> Tensor:
    """The sum over axis 0, always in the same order: it does not depend on the number of threads."""
    total = parts.new_zeros(parts.shape[1:])
    for row in parts:
        total += row
    return total


def _setup(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[0])


def _gradient(ctx: Any, grad_h: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad_h, grad_last, *ctx.saved_tensors), None)


def _form(a: Tensor, x: Tensor, state: Tensor, resets: Tensor) -> tuple[Tensor, Tensor]:
    return torch_.linear_scan(a, x, state, resets if resets.numel() else None)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=2, inputs=4)


def linear_scan(
    a: Tensor, x: Tensor, initial_state: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States and last state; arguments as at the door."""
    dtype = x.dtype
    wide = torch.promote_types(torch.promote_types(a.dtype, dtype), torch.float32)
    state = x.new_zeros(x[:, 0].shape) if initial_state is None else initial_state
    marks = resets if resets is not None else x.new_zeros((0, 0), dtype=torch.bool)
    h, last = _forward(a.to(wide), x.to(wide), state.to(wide), marks)
    return h.to(dtype), last.to(torch.promote_types(dtype, torch.float32))
