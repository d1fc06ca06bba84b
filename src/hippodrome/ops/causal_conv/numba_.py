"""Causal convolution on the CPU: custom ops around the fused Numba kernels."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.ops._custom import register_second_order
from hippodrome.ops._threads import run_tiles
from hippodrome.ops.causal_conv import torch_

NAME = "numba"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take float32 and float64 on the CPU; half precision is widened at the door."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    return None


def _flat(x: Tensor) -> tuple[Any, tuple[int, int]]:
    """The memory under a (b, t, d) tensor as one flat array, and its strides; copied if rows have gaps."""
    if x.stride(-1) != 1:
        x = x.contiguous()
    reach = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.detach().as_strided((reach,), (1,)).numpy(), (x.stride(0), x.stride(1))


def _row(x: Tensor) -> Any:
    return x.detach().contiguous().view(-1).numpy()


def _widened(lanes: int, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors with their last axis, the channels, filled up to one group of lanes at least."""
    return tuple(F.pad(x, (0, max(0, lanes - x.shape[-1]))) for x in tensors)


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
    y = torch.empty(x.shape, dtype=x.dtype)
    last = torch.empty(past.shape, dtype=x.dtype)
    run_tiles(
        kernel.forward,
        b * -(-t // kernel.span(w)),
        *_flat(x),
        _row(taps),
        _row(bias),
        _row(past),
        _row(resets),
        silu,
        (t, d, w),
        _row(y),
        _row(last),
    )
    return (y, last) if d == given else (y[..., :given].contiguous(), last[..., :given].contiguous())


@_forward.register_fake
def _(x, weight, bias, past, resets, silu):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape), x.new_empty(past.shape)


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
        zeros = (torch.zeros(z.shape, dtype=x.dtype) for z in (x, weight, bias))
        return (*zeros, grad_last.clone())  # type: ignore[return-value]
    x, taps, bias, past, grad_y, grad_last = _widened(
        kernel.LANES, x, weight.T, bias, past, grad_y, grad_last
    )
    d, w = x.shape[-1], taps.shape[0]
    tiles = b * -(-t // kernel.span(w))
    grad_x = torch.empty(x.shape, dtype=x.dtype)
    grad_past = torch.empty(past.shape, dtype=x.dtype)
    partial = torch.empty(tiles, w + 1, d, dtype=x.dtype)
    run_tiles(
        kernel.backward,
        tiles,
        *_flat(x),
        _row(taps),
        _row(bias),
        _row(past),
        _row(resets),
        silu,
        (t, d, w),
        *_flat(grad_y),
        _row(grad_last),
        _row(grad_x),
        _row(grad_past),
        _row(partial),
    )
    # Summed by numpy, in one order whatever the number of threads.
    sums = torch.from_numpy(partial.numpy().sum(0))[:, :given]
    grad_weight, grad_bias = sums[:-1].T.contiguous(), sums[-1].clone()
    if d > given:
        grad_x, grad_past = grad_x[..., :given].contiguous(), grad_past[..., :given].contiguous()
    return grad_x, grad_weight, grad_bias, grad_past


@_backward.register_fake
def _(grad_y, grad_last, x, weight, bias, past, resets, silu):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(z.shape) for z in (x, weight, bias, past))


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
    dtype = x.dtype
    wide = torch.promote_types(torch.promote_types(dtype, weight.dtype), torch.float32)
    shift = x.new_zeros(d) if bias is None else bias
    past = x.new_zeros(b, weight.shape[1] - 1, d) if initial_state is None else initial_state
    marks = x.new_zeros((0, 0), dtype=torch.bool) if resets is None else resets
    floats = (z.to(wide) for z in (x, weight, shift, past))
    y, last = _forward(*floats, marks, silu)
    return y.to(dtype), last
