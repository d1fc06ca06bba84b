"""One token of the causal convolution on a GPU: an op around the Triton kernel, fit for CUDA graphs."""

import torch
from torch import Tensor

from hippodrome.ops import _triton
from hippodrome.ops._light import agree, dense, light_op, unfit, written
from hippodrome.ops.causal_conv_update import torch_
from hippodrome.ops.causal_conv_update.examples import inputs

NAME = "triton"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernel takes float32, 16-bit and float64 tensors on CUDA devices, where no gradient is wanted."""
    return (
        _triton.refusal(*tensors)
        or unfit(*tensors)
        or _triton.trusted("causal_conv_update", _triton.device_index(*tensors), _check)
    )


def _check(device: torch.device) -> None:
    """Outputs and windows."""
    agree(causal_conv_update, torch_.causal_conv_update, inputs(2, 300, 4), device, True)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, silu: bool) -> Tensor:
    return x.new_empty(x.shape)


@light_op("causal_conv_update_triton", _fake, mutates=("state",), devices=("CUDA", "CPU"))
def _update(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, silu: bool) -> Tensor:
    from hippodrome.ops.causal_conv_update import _triton_kernel as kernel

    b, d = x.shape
    y = x.new_empty(x.shape)
    if not y.numel():
        return y
    x, weight, window = _triton.rows(x), dense(weight), dense(state)
    shift = dense(bias) if bias is not None else weight
    block = 256
    with _triton.on(x):
        kernel.update[(-(-d // block), b)](
            *(x, weight, shift, window, y, d, x.stride(0)),
            W=weight.shape[1],
            BIAS=bias is not None,
            SILU=silu,
            BLOCK=block,
            num_warps=4,
        )
    written(state, window)
    return y


def causal_conv_update(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, silu: bool) -> Tensor:
    """The output; arguments as at the door."""
    y: Tensor = _update(x, weight, bias, state, silu)
    return y
