"""Causal convolution on the CPU: custom ops around the fused Numba kernels."""

from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.ops._arrays import dense, flat
from hippodrome.ops._custom import register_second_order
from hippodrome.ops._threads import run_tiles
from hippodrome.ops.causal_conv import torch_

NAME = "numba"
TAPS = 128
"""The most taps that have a kernel: it is compiled with all of them in a row."""


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take float32, float64 and, for x, bfloat16 on the CPU; float16 is widened at the door."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    weight = tensors[1]
    if weight is not None and weight.shape[1] > TAPS:
        return f"the Numba kernels take up to {TAPS} taps, and there are {weight.shape[1]}."
    return None


def _widened(lanes: int, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors with their last axis, the channels, filled up to one group of lanes at least."""
    missing = lanes - tensors[0].shape[-1]
    return tuple(F.pad(x, (0, missing)) for x in tensors) if missing > 0 else tensors


def _plan(b: int, d: int) -> tuple[int, int]:
    """Blocks of sixteen channels in a tile, and tiles: four adjoining blocks where there are tiles enough."""
    blocks = -(-d // 16)
    group = max(1, min(4, b * blocks // 16))
    return group, b * -(-blocks // group)


@torch.library.custom_op("hippodrome::causal_conv", mutates_args=())
def _forward(
    x: Tensor, weight: Tensor, bias: Tensor, past: Tensor, resets: Tensor, silu: bool
) -> tuple[Tensor, Tensor]:
    from hippodrome.ops.causal_conv import _numba_kernel as kernel

    b, t, given = x.shape
    if not x.numel():
        return torch.empty(x.shape, dtype=x.dtype), past.clone()
    x, taps, bias, past = _widened(kernel.LANES, x, weight.T, bias, past)
    d, w = x.shape[-1], taps.shape[0]
    y, last = torch.empty(x.shape, dtype=x.dtype), torch.empty(past.shape, dtype=past.dtype)
    (group, tiles), (xs, strides) = _plan(b, d), flat(x)
    run_tiles(
        kernel.forward,
        tiles,
        (0,) * w,
        (t, d, group),
        strides,
        silu,
        xs,
        *(dense(z) for z in (taps, bias, past, resets, y, last)),
    )
    return (y, last) if d == given else (y[..., :given].contiguous(), last[..., :given].contiguous())


@_forward.register_fake
def _(x, weight, bias, past, resets, silu):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape), past.new_empty(past.shape)


@torch.library.custom_op("hippodrome::causal_conv_backward", mutates_args=())
def _backward(
    grad_y: Tensor,
    grad_last: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    past: Tensor,
    resets: Tensor,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from hippodrome.ops.causal_conv import _numba_kernel as kernel

    b, t, given = x.shape
    if not x.numel():
        zeros = (torch.zeros(z.shape, dtype=z.dtype) for z in (x, weight, bias))
        return (*zeros, grad_last.clone())  # type: ignore[return-value]
    x, taps, bias, past, grad_y, grad_last = _widened(
        kernel.LANES, x, weight.T, bias, past, grad_y, grad_last
    )
    d, w = x.shape[-1], taps.shape[0]
    grad_x, grad_past = torch.empty(x.shape, dtype=x.dtype), torch.empty(past.shape, dtype=past.dtype)
    sums = torch.empty(b, w + 1, d, dtype=torch.float64)
    (group, tiles), (xs, strides), (ys, strides_y) = _plan(b, d), flat(x), flat(grad_y)
    run_tiles(
        kernel.backward,
        tiles,
        (0,) * w,
        (t, d, group),
        (strides, strides_y),
        silu,
        xs,
        *(dense(z) for z in (taps, bias, past, resets)),
        ys,
        *(dense(z) for z in (grad_last, grad_x, grad_past, sums)),
    )
    # Summed by numpy, in one order whatever the number of threads.
    total = torch.from_numpy(sums.numpy().sum(0))[:, :given].to(weight.dtype)
    grad_weight, grad_bias = total[:-1].T.contiguous(), total[-1].clone()
    if d > given:
        grad_x, grad_past = grad_x[..., :given].contiguous(), grad_past[..., :given].contiguous()
    return grad_x, grad_weight, grad_bias, grad_past


@_backward.register_fake
def _(grad_y, grad_last, x, weight, bias, past, resets, silu):  # type: ignore[no-untyped-def]
    return tuple(z.new_empty(z.shape) for z in (x, weight, bias, past))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _gradient(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad_y, grad_last, *ctx.saved_tensors, ctx.silu), None, None)


def _form(
    x: Tensor, weight: Tensor, bias: Tensor, past: Tensor, resets: Tensor, silu: bool
) -> tuple[Tensor, Tensor]:
    return torch_.causal_conv(x, weight, bias, past, resets if resets.numel() else None, silu)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=2, inputs=5, options=1)


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    resets: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor]:
    """Outputs and the last raw inputs; arguments as at the door."""
    b, _, d = x.shape
    given = (z.dtype for z in (weight, bias, initial_state) if z is not None)
    wide = reduce(torch.promote_types, given, torch.promote_types(x.dtype, torch.float32))
    shift = weight.new_zeros(d) if bias is None else bias
    past = weight.new_zeros(b, weight.shape[1] - 1, d) if initial_state is None else initial_state
    marks = x.new_zeros((0, 0), dtype=torch.bool) if resets is None else resets
    # bfloat16 is read and written as it lies; everything else meets in one dtype.
    narrow = x if (x.dtype, wide) == (torch.bfloat16, torch.float32) else x.to(wide)
    y, last = _forward(narrow, weight.to(wide), shift.to(wide), past.to(wide), marks, silu)
    return y.to(x.dtype), last
