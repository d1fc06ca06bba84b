"""The linear map of many rows in float32 by oneDNN, which PyTorch holds but asks only for other dtypes.

PyTorch gives float32 products on the CPU to MKL, which on processors that are not Intel's keeps to vectors of
256 bits. oneDNN multiplies with whatever vectors there are: on an AMD processor with AVX-512 it is twice as
fast. Gradients are products of the same kind.
"""

from typing import Any

import torch
from torch import Tensor

from hippodrome.ops._light import foreign, light_op
from hippodrome.ops._threads import share_tiles
from hippodrome.ops.linear import torch_

NAME = "onednn"
WORK = 2**21
"""Multiplications from which the better product pays for the longer way to it."""


@torch.compiler.assume_constant_result
def _lacking() -> str | None:
    """What this machine or this PyTorch lacks, if anything."""
    if not torch.backends.mkldnn.is_available():
        return "this PyTorch is built without oneDNN."
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return "this processor has no vectors of 512 bits, which PyTorch's own product would leave unused."
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return "this PyTorch does not offer oneDNN's product of float32."
    return None


def refusal(*tensors: Tensor | None) -> str | None:
    """The product takes float32 on the CPU, all tensors alike, of a size that is worth it."""
    if torch.compiler.is_compiling():
        return "inside a compiler the product is the compiler's to choose."
    x, weight, bias = tensors
    assert x is not None
    assert weight is not None
    for y in (x, weight) if bias is None else (x, weight, bias):
        if not y.is_cpu:
            return f"oneDNN runs on the CPU, and a tensor is on {y.device}."
        if y.dtype != torch.float32:
            return f"PyTorch gives all dtypes but float32 to oneDNN itself; got {y.dtype}."
    if x.dim() == 0 or weight.dim() != 2 or weight.shape[1] != x.shape[-1]:
        return f"weight must be (o, i) for x (..., i); got {tuple(weight.shape)} and {tuple(x.shape)}."
    if bias is not None and bias.shape != weight.shape[:1]:
        return f"bias must be ({weight.shape[0]},); got {tuple(bias.shape)}."
    if x.numel() * weight.shape[0] < WORK:
        return f"so small a product is as fast in PyTorch's own way: below {WORK} multiplications."
    if torch.is_autocast_enabled("cpu"):
        return "under autocast the product is PyTorch's, in the dtype of autocast."
    if (sentence := _lacking()) is not None:
        return sentence
    return foreign(x, weight, bias)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _turned(x: Tensor) -> Tensor:
    """A copy in order of a matrix that lies by columns: oneDNN would make one, and PyTorch copies slowly."""
    from hippodrome.ops.linear import _turn_kernel as kernel

    columns, rows = x.shape
    y = x.new_empty(columns, rows)
    tiles = -(-columns // kernel.COLUMNS)
    addresses = (x.data_ptr(), y.data_ptr())
    share_tiles(kernel.turned, tiles, (rows, columns, x.stride(1)), addresses, kernel.SAMPLES[x.dtype])
    return y


@light_op("linear.many", _fake)
def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if x.stride(0) == 1 and x.stride(1) >= x.shape[0]:
        x = _turned(x)
    if not (weight.is_contiguous() or weight.T.is_contiguous()):
        # oneDNN reads any other matrix of weights by its definition, two thousand times slower.
        weight = weight.contiguous()
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


class _Linear(torch.autograd.Function):
    """x W^T + bias of two-dimensional x; its gradients are products that may be differentiated in turn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            linear(grad, weight.T, None) if for_x else None,
            linear(grad.T, x.T, None) if for_weight else None,
            grad.sum(0) if for_bias else None,
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The outputs; arguments as at the door."""
    if x.numel() * weight.shape[0] < WORK:
        # A gradient of a large product may be a small one.
        return torch_.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    y = (_Linear.apply if torch.is_grad_enabled() else _product)(rows, weight, bias)
    return y.view(*x.shape[:-1], weight.shape[0])
