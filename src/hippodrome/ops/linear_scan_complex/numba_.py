"""Complex linear scan on the CPU: custom ops around the linear scan's Numba kernels, channels as pairs."""

from typing import Any

import torch
from torch import Tensor

from hippodrome.ops._custom import register_second_order
from hippodrome.ops.linear_scan.numba_ import checkpoints, inputs, refusal, run, run_back, wants_checkpoints
from hippodrome.ops.linear_scan_complex import torch_

__all__ = ["NAME", "linear_scan_complex", "refusal"]
NAME = "numba"
PAIRS = (0,)


def _flat(x: Tensor) -> Tensor:
    """With real and imaginary parts side by side in the last axis."""
    return x.flatten(-2)


@torch.library.custom_op("hippodrome::linear_scan_complex", mutates_args=())
def _forward(
    a: Tensor, x: Tensor, state: Tensor, resets: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    h, last, marks = run(PAIRS, _flat(a), _flat(x), _flat(state), resets, save)
    return h.view(x.shape), last.view(state.shape), marks


@_forward.register_fake
def _(a, x, state, resets, save):  # type: ignore[no-untyped-def]
    marks = checkpoints(_flat(x), state, save)
    return x.new_empty(x.shape), state.new_empty(state.shape), marks


@torch.library.custom_op("hippodrome::linear_scan_complex_backward", mutates_args=())
def _backward(
    grad_h: Tensor, grad_last: Tensor, a: Tensor, x: Tensor, state: Tensor, resets: Tensor, marks: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    found = run_back(PAIRS, _flat(grad_h), _flat(grad_last), _flat(a), _flat(x), _flat(state), resets, marks)
    grad_a, grad_x, grad_state = (g.view(z.shape) for g, z in zip(found, (a, x, state), strict=True))
    return grad_a, grad_x, grad_state


@_backward.register_fake
def _(grad_h, grad_last, a, x, state, resets, marks):  # type: ignore[no-untyped-def]
    return a.new_empty(a.shape), x.new_empty(x.shape), state.new_empty(state.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:4], output[2])


def _gradient(ctx: Any, grad_h: Tensor, grad_last: Tensor, grad_marks: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, marks = ctx.saved_tensors
    if not marks.numel():
        marks = _forward(*tensors, True)[2]
    return (*_backward(grad_h, grad_last, *tensors, marks), None, None)


def _form(a: Tensor, x: Tensor, state: Tensor, resets: Tensor) -> tuple[Tensor, Tensor]:
    return torch_.linear_scan_complex(a, x, state, resets if resets.numel() else None)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=2, inputs=4)


def linear_scan_complex(
    a: Tensor, x: Tensor, initial_state: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States and last state; arguments as at the door."""
    arguments = inputs(a, x, initial_state, resets, a.dim() == 2)
    h, last, _ = _forward(*arguments, wants_checkpoints(*arguments))
    return h.to(x.dtype), last.to(torch.promote_types(x.dtype, torch.float32))
