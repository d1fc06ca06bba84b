"""Causal convolution on the GPU: custom ops around the Triton kernels."""

from typing import Any

import torch
from torch import Tensor

from hippodrome.ops import _triton
from hippodrome.ops._custom import register_second_order
from hippodrome.ops.causal_conv import torch_
from hippodrome.ops.causal_conv.examples import inputs

NAME = "triton"
TOKENS, CHANNELS = 32, 64
"""The largest tile of one program: eight numbers a thread backward, so that two programs fit side by side."""
FEW_TAPS = 4
"""Up to here the backward forms the gradient before silu anew for each tap, from the cache, which costs less
than writing it out and reading it back."""


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels run on CUDA devices, on each after they have agreed with the torch backend there once."""
    sentence = _triton.refusal(*tensors)
    return sentence or _triton.trusted("causal_conv", _triton.device_index(*tensors), _check)


def _check(device: torch.device) -> None:
    """With sizes of whole sixteens but no whole tiles, for which most calls need the same kernels."""
    _triton.agree(_fast, _plain, inputs(b=1, t=TOKENS + 9, d=CHANNELS + 16, with_resets=False), device)


def _fast(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor, resets: None) -> tuple[Tensor, Tensor]:
    return causal_conv(x, weight, bias, state, resets, True)


def _plain(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor, resets: None) -> tuple[Tensor, Tensor]:
    return torch_.causal_conv(x, weight, bias, state, resets, True)


def _tile(t: int, d: int) -> dict[str, int]:
    return {"BT": min(_triton.power(t), TOKENS), "BD": min(max(_triton.power(d), 16), CHANNELS)}


@torch.library.custom_op("hippodrome::causal_conv_triton", mutates_args=())
def _forward(
    x: Tensor, weight: Tensor, bias: Tensor, past: Tensor, resets: Tensor, silu: bool
) -> tuple[Tensor, Tensor]:
    from hippodrome.ops.causal_conv import _triton_kernel as kernel

    b, t, d = x.shape
    y, last = (
        torch.empty(x.shape, dtype=x.dtype, device=x.device),
        torch.empty(past.shape, dtype=past.dtype, device=x.device),
    )
    if not x.numel():
        return y, last.copy_(past)
    x, past, marks = _triton.rows(x), past.contiguous(), resets.contiguous().view(torch.uint8)
    tile = _tile(t, d)
    with _triton.on(x):
        kernel.forward[(b * -(-t // tile["BT"]), -(-d // tile["BD"]))](
            x,
            weight,
            bias.contiguous(),
            past,
            marks,
            y,
            last,
            *weight.stride(),
            *x.stride()[:2],
            t,
            d,
            W=weight.shape[1],
            SILU=silu,
            HAS_RESETS=marks.numel() > 0,
            ACC=kernel.wide(x.dtype),
            **tile,
            num_warps=4,
        )
    return y, last


@_forward.register_fake
def _(x, weight, bias, past, resets, silu):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape), past.new_empty(past.shape)


@torch.library.custom_op("hippodrome::causal_conv_triton_backward", mutates_args=())
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
    from hippodrome.ops.causal_conv import _triton_kernel as kernel

    b, t, d = x.shape
    w = weight.shape[1]
    if not x.numel():
        zeros = (torch.zeros(z.shape, dtype=z.dtype, device=z.device) for z in (x, weight, bias))
        return (*zeros, grad_last.clone())  # type: ignore[return-value]
    x, past, marks = _triton.rows(x), past.contiguous(), resets.contiguous().view(torch.uint8)
    grad_y, bias = _triton.rows(grad_y), bias.contiguous()
    tile, channels = _tile(t + w - 1, d), -(-d // _tile(t, d)["BD"])
    options = {"W": w, "HAS_RESETS": marks.numel() > 0, "ACC": kernel.wide(x.dtype), **tile, "num_warps": 8}
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grad_past = torch.empty(past.shape, dtype=past.dtype, device=x.device)
    tiles = b * -(-(t + w - 1) // tile["BT"])
    partial = x.new_empty((tiles, w + 1, d), dtype=past.dtype)
    with _triton.on(x):
        if silu and w > FEW_TAPS:
            slope = x.new_empty(x.shape, dtype=past.dtype)
            kernel.slopes[(b * -(-t // tile["BT"]), channels)](
                grad_y,
                x,
                weight,
                bias,
                past,
                marks,
                slope,
                *weight.stride(),
                *grad_y.stride()[:2],
                *x.stride()[:2],
                t,
                d,
                **options,
            )
            grad_y, silu = slope, False
        kernel.backward[(tiles, channels)](
            grad_y,
            grad_last.contiguous(),
            x,
            weight,
            bias,
            past,
            marks,
            grad_x,
            grad_past,
            partial,
            *weight.stride(),
            *grad_y.stride()[:2],
            *x.stride()[:2],
            t,
            d,
            SILU=silu,
            **options,
        )
    # Summed by PyTorch, in an order of its own that is the same in every run.
    sums = partial.sum(0)
    grad_weight = torch.empty(weight.shape, dtype=weight.dtype, device=x.device)
    return grad_x, grad_weight.copy_(sums[:-1].T), sums[-1].to(bias.dtype, copy=True), grad_past


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
    dtype = x.dtype if x.dtype.itemsize == 2 else torch.promote_types(x.dtype, weight.dtype)
    wide = _triton.wide(dtype)
    shift = x.new_zeros(d) if bias is None else bias
    past = x.new_zeros(b, weight.shape[1] - 1, d) if initial_state is None else initial_state
    marks = x.new_zeros((0, 0), dtype=torch.bool) if resets is None else resets
    y, last = _forward(x.to(dtype), weight, shift, past.to(wide), marks, silu)
    return y.to(x.dtype), last.to(_triton.wide(x.dtype))
