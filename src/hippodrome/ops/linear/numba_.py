"""The linear map of few rows on the CPU: an op around the Numba kernel that reads each weight once."""

import torch
from torch import Tensor

from hippodrome.ops._light import light_op, unfit
from hippodrome.ops._threads import run_bytes

NAME = "numba"
ROWS = 4
"""Rows up to which the weights' bytes, not the arithmetic, set the time; PyTorch's product is for more."""
DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernel takes a few rows on the CPU, all tensors of one dtype, where no gradient is wanted."""
    if torch.compiler.is_compiling():
        return "inside a compiler the product is the compiler's to fuse."
    x, weight, bias = tensors
    assert x is not None
    assert weight is not None
    if not (x.is_cpu and weight.is_cpu):
        return f"the Numba kernel runs on the CPU; got tensors on {x.device} and {weight.device}."
    if x.dtype != weight.dtype or x.dtype not in DTYPES:
        return f"the kernel takes float32, bfloat16 and float64, all alike; got {x.dtype} and {weight.dtype}."
    if x.dim() == 0 or x.numel() > ROWS * x.shape[-1] or not x.numel():
        return f"the kernel is for 1 to {ROWS} rows; got x of shape {tuple(x.shape)}."
    if weight.dim() != 2 or weight.shape[1] != x.shape[-1] or weight.stride(1) != 1 or not weight.shape[0]:
        return f"weight must be (o, {x.shape[-1]}) with dense rows; got shape {tuple(weight.shape)}."
    if bias is not None and (bias.shape != weight.shape[:1] or bias.dtype != x.dtype or not bias.is_cpu):
        return f"bias must be ({weight.shape[0]},) in {x.dtype}; got {tuple(bias.shape)} in {bias.dtype}."
    if torch.is_autocast_enabled("cpu"):
        return "under autocast the product is PyTorch's, in the dtype of autocast."
    return unfit(*tensors)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@light_op("linear", _fake)
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    from hippodrome.ops.linear import _numba_kernel as kernel

    outer, inner = weight.shape
    y = x.new_empty((x.shape[0], outer) if x.dim() == 2 else (*x.shape[:-1], outer))
    if x.dim() != 2 or x.stride(1) != 1:
        x = x.reshape(-1, inner).contiguous()
    if bias is not None and bias.stride(0) != 1:
        bias = bias.contiguous()
    sizes = (x.shape[0], inner, outer, x.stride(0), weight.stride(0))
    addresses = (x.data_ptr(), weight.data_ptr(), 0 if bias is None else bias.data_ptr(), y.data_ptr())
    sample = kernel.SAMPLES[x.dtype]
    tiles = -(-outer // kernel.OUTPUTS)
    run_bytes(kernel.product, tiles, weight.nbytes, sizes, addresses, sample)
    return y


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The outputs; arguments as at the door."""
    if x.dim() != 2:
        return linear(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], weight.shape[0])
    y: Tensor = _linear(x, weight, bias)
    return y
