"""Linear scan on the CPU: custom ops around the fused Numba kernels, which serve the complex scan too."""

from math import gcd
from typing import Any

import torch
from torch import Tensor

from hippodrome.ops._arrays import dense, flat
from hippodrome.ops._custom import register_second_order
from hippodrome.ops._threads import run_tiles
from hippodrome.ops.linear_scan import torch_

NAME = "numba"
CHUNK, WIDEST, NARROWEST = 16, 4096, 64
"""Steps between two checkpoints, and scalars of a tile."""


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take float32, float64 and bfloat16 on the CPU; float16 is widened at the door."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    return None


def checkpoints(x: Tensor, state: Tensor, save: bool) -> Tensor:
    """Room for the state in front of each chunk, (b, chunks, d), or none."""
    b, t, d = x.shape
    return state.new_empty((b, -(-t // CHUNK), d) if save else (0, 0, 0))


def _plan(x: Tensor) -> tuple[int, tuple[int, int, int, int]]:
    """Tiles, and the kernels' sizes: the widest tiles of which each thread gets as many."""
    (b, t, d), threads = x.shape, torch.get_num_threads()
    pieces = max(threads // gcd(b, threads), -(-d // WIDEST))
    width = max(-(-d // (pieces * 16)) * 16, NARROWEST)
    return b * -(-d // width), (t, d, width, CHUNK)


def _steps(x: Tensor) -> tuple[Any, tuple[int, ...]]:
    """Memory, and the strides of rows and steps; (0, 0) where x is (d), constant in time."""
    array, strides = flat(x)
    return array, strides if x.dim() == 3 else (0, 0)


def run(
    pairs: tuple[int, ...], a: Tensor, x: Tensor, state: Tensor, resets: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """h, the last state and checkpoints; ``pairs`` is (0,) where adjoining scalars are complex numbers."""
    from hippodrome.ops.linear_scan import _numba_kernel as kernel

    h = torch.empty(x.shape, dtype=x.dtype)
    if not h.numel():
        return h, state.clone(), checkpoints(x, state, save)
    last, marks = torch.empty(state.shape, dtype=state.dtype), checkpoints(x, state, save)
    (tiles, sizes), (a_array, a_strides), (x_array, x_strides) = _plan(x), _steps(a), _steps(x)
    run_tiles(
        kernel.forward,
        tiles,
        pairs,
        sizes,
        a_strides,
        x_strides,
        a_array,
        x_array,
        *(dense(z) for z in (state, resets, h, last, marks)),
    )
    return h, last, marks


def run_back(
    pairs: tuple[int, ...],
    grad_h: Tensor,
    grad_last: Tensor,
    a: Tensor,
    x: Tensor,
    state: Tensor,
    resets: Tensor,
    marks: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a, x and the first state."""
    from hippodrome.ops.linear_scan import _numba_kernel as kernel

    constant = a.dim() == 1
    if not x.numel():
        return torch.zeros(a.shape, dtype=a.dtype), torch.empty(x.shape, dtype=x.dtype), grad_last.clone()
    grad_x, grad_state = torch.empty(x.shape, dtype=x.dtype), torch.empty(state.shape, dtype=state.dtype)
    # One of the two stays empty: the gradient step by step, or its sum over time for each row.
    grad_a = torch.empty((0,) if constant else a.shape, dtype=a.dtype)
    part_a = torch.empty(state.shape if constant else (0,), dtype=torch.float64)
    (tiles, sizes), (a_array, a_strides), (x_array, x_strides) = _plan(x), _steps(a), _steps(x)
    h_array, h_strides = _steps(grad_h)
    run_tiles(
        kernel.backward,
        tiles,
        pairs,
        constant,
        sizes,
        a_strides,
        x_strides,
        h_strides,
        a_array,
        x_array,
        dense(resets),
        dense(marks),
        h_array,
        *(dense(z) for z in (grad_last, grad_a, part_a, grad_x, grad_state)),
    )
    if constant:
        # Summed by numpy, in one order whatever the number of threads.
        grad_a = torch.from_numpy(part_a.numpy().sum(0)).to(a.dtype)
    return grad_a, grad_x, grad_state


def inputs(
    a: Tensor, x: Tensor, initial_state: Tensor | None, resets: Tensor | None, constant: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Arguments as the kernels take them: along time bfloat16 as it lies, all else float32 at least."""
    wide = torch.promote_types(torch.promote_types(a.dtype, x.dtype), torch.float32)
    half = torch.bfloat16 if wide == torch.float32 else wide
    state = x.new_zeros(x[:, 0].shape) if initial_state is None else initial_state
    marks = resets if resets is not None else x.new_zeros((0, 0), dtype=torch.bool)
    decay = a if a.dtype == half and not constant else a.to(wide)
    return decay, x if x.dtype == half else x.to(wide), state.to(wide), marks


def wants_checkpoints(*tensors: Tensor) -> bool:
    """Whether a backward pass may follow."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


@torch.library.custom_op("hippodrome::linear_scan", mutates_args=())
def _forward(
    a: Tensor, x: Tensor, state: Tensor, resets: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return run((), a, x, state, resets, save)


@_forward.register_fake
def _(a, x, state, resets, save):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape), state.new_empty(state.shape), checkpoints(x, state, save)


@torch.library.custom_op("hippodrome::linear_scan_backward", mutates_args=())
def _backward(
    grad_h: Tensor, grad_last: Tensor, a: Tensor, x: Tensor, state: Tensor, resets: Tensor, marks: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return run_back((), grad_h, grad_last, a, x, state, resets, marks)


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
    return torch_.linear_scan(a, x, state, resets if resets.numel() else None)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=2, inputs=4)


def linear_scan(
    a: Tensor, x: Tensor, initial_state: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States and last state; arguments as at the door."""
    arguments = inputs(a, x, initial_state, resets, a.dim() == 1)
    h, last, _ = _forward(*arguments, wants_checkpoints(*arguments))
    return h.to(x.dtype), last.to(torch.promote_types(x.dtype, torch.float32))
