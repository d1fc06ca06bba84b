"""Selective scan over a grid on the CPU: custom ops around the fused Numba kernels."""

from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.ops._arrays import dense
from hippodrome.ops._custom import register_second_order
from hippodrome.ops._threads import run_tiles
from hippodrome.ops.selective_scan2d import torch_

NAME = "numba"
LANES = 16
INPUTS = 8


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take real floats on the CPU; what is narrower than float32 is widened at the door."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    return None


def tiled(x: Tensor, fill: float = 0.0) -> Tensor:
    """(..., 2, d, n) as (blocks, ..., 2, n, 16), channels filled up to a multiple of sixteen."""
    x = F.pad(x, (0, 0, 0, -x.shape[-2] % LANES), value=fill).unflatten(-2, (-1, LANES))
    return x.movedim(-3, 0).transpose(-1, -2)


def untiled(x: Tensor, inputs: Tensor) -> Tensor:
    """The same back, of as many channels d as the inputs (..., d) have."""
    return x.transpose(-1, -2).movedim(0, -3).flatten(-3, -2)[..., : inputs.shape[-1], :]


@torch.library.custom_op("hippodrome::selective_scan2d", mutates_args=())
def _forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    K: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor,
    resets: Tensor,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    from hippodrome.ops.selective_scan2d import _numba_kernel as kernel

    (b, t, v, d), n = x.shape, A.shape[-2]
    y, final = x.new_empty(x.shape), x.new_empty(state.shape)
    marks = x.new_empty(state.numel() * t if save else 0)
    if x.numel():
        sizes = (t, v, d, n)
        arrays = (dense(z) for z in (x, dt, A, K, B, C, state, resets, y, final, marks))
        run_tiles(kernel.forward, b * A.shape[0], sizes, *arrays)
    return y, final, marks


@_forward.register_fake
def _(x, dt, A, K, B, C, state, resets, save):  # type: ignore[no-untyped-def]
    return (
        x.new_empty(x.shape),
        x.new_empty(state.shape),
        x.new_empty(state.numel() * x.shape[1] if save else 0),
    )


@torch.library.custom_op("hippodrome::selective_scan2d_backward", mutates_args=())
def _backward(
    grad_y: Tensor,
    grad_final: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    K: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor,
    resets: Tensor,
    marks: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from hippodrome.ops.selective_scan2d import _numba_kernel as kernel

    (b, t, v, d), (blocks, _, n, _) = x.shape, A.shape
    grad_x, grad_dt, grad_state = (z.new_empty(z.shape) for z in (x, dt, state))
    part_A, part_K = x.new_zeros(b, *A.shape), x.new_zeros(b, *A.shape)
    part_B, part_C = x.new_zeros(b, t, v, blocks, 2, n), x.new_zeros(b, t, v, blocks, 2, n)
    if x.numel():
        arrays = (
            dense(z)
            for z in (
                *(x, dt, A, K, B, C, state, resets, marks, grad_y, grad_final),
                *(grad_x, grad_dt, part_A, part_K, part_B, part_C, grad_state),
            )
        )
        run_tiles(kernel.backward, b * blocks, (t, v, d, n), *arrays)
    return grad_x, grad_dt, part_A.sum(0), part_K.sum(0), part_B.sum(3), part_C.sum(3), grad_state


@_backward.register_fake
def _(grad_y, grad_final, *inputs):  # type: ignore[no-untyped-def]
    return tuple(z.new_empty(z.shape) for z in inputs[: INPUTS - 1])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:INPUTS], output[2])
    # The gradient of all saved states, which nobody has, would be as large as they are.
    ctx.set_materialize_grads(False)


def _gradient(
    ctx: Any, grad_y: Tensor | None, grad_final: Tensor | None, grad_marks: Tensor | None
) -> tuple[Tensor | None, ...]:
    *inputs, marks = ctx.saved_tensors
    grad_y = torch.zeros_like(inputs[0]) if grad_y is None else grad_y
    grad_final = torch.zeros_like(inputs[6]) if grad_final is None else grad_final
    if not marks.numel():
        marks = _forward(*inputs, True)[2]
    return (*_backward(grad_y, grad_final, *inputs, marks), None, None)


def _form(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    x, dt, A, K, B, C, state, resets = inputs
    rates, shares, start = (untiled(z, x) for z in (A, K, state.transpose(0, 1)))
    marks = resets if resets.numel() else None
    y, last = torch_.selective_scan2d(x, dt, rates, shares, B, C, start, marks)
    return y, tiled(last).transpose(0, 1)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=2, inputs=INPUTS)


def selective_scan2d(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    K: Tensor,
    B: Tensor,
    C: Tensor,
    initial_state: Tensor | None,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs and last states; arguments as at the door."""
    dtype, (b, _, v, _), n = x.dtype, x.shape, A.shape[-1]
    given = [x, dt, A, K, B, C, *([] if initial_state is None else [initial_state])]
    wide = reduce(torch.promote_types, (z.dtype for z in given), torch.float32)
    x, dt, A, K, B, C = (z.to(wide) for z in (x, dt, A, K, B, C))
    rates, shares = tiled(A, -1.0), tiled(K)
    if initial_state is None:
        start = x.new_zeros(b, rates.shape[0], v, 2, n, LANES)
    else:
        start = tiled(initial_state.to(wide)).transpose(0, 1)
    marks = x.new_zeros((0, 0), dtype=torch.bool) if resets is None else resets
    arguments = (x, dt, rates, shares, B, C, start)
    save = torch.is_grad_enabled() and any(z.requires_grad for z in arguments)
    y, final, _ = _forward(*arguments, marks, save)
    return y.to(dtype), untiled(final.transpose(0, 1), x)
