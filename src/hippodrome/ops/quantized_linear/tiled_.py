"""The linear map of int8 weights on the CPU for many rows: tiles widened, then a library's product.

An int8 is exact in bfloat16, so there the tile is the integers themselves, the fast product of bfloat16 takes
them, and the scale is put on what comes out of it: no weight is rounded a second time. In float32 the scale
goes on the tile, which is smaller than the output where rows are many.
"""

import torch
from torch import Tensor

from hippodrome.ops._light import light_op, unfit
from hippodrome.ops.linear import linear

NAME = "tiled"
TILE = 2**24
"""Bytes of a widened tile: all of a map inside a usual layer, a part of a head."""
DTYPES = (torch.float32, torch.bfloat16)


def refusal(*tensors: Tensor | None) -> str | None:
    """The tiles take any rows in float32 and bfloat16 on the CPU, where no gradient is wanted."""
    if torch.compiler.is_compiling():
        return "inside a compiler the product is the compiler's to fuse."
    x, weight, scale, bias = tensors
    assert x is not None
    assert weight is not None
    assert scale is not None
    if not (x.is_cpu and weight.is_cpu and scale.is_cpu):
        return f"the tiles are for the CPU; got tensors on {x.device} and {weight.device}."
    if x.dtype not in DTYPES or scale.dtype != torch.float32:
        return f"the tiles take x in float32 or bfloat16, a float32 scale; got {x.dtype} and {scale.dtype}."
    if x.dim() == 0 or not x.numel() or not weight.shape[0]:
        return f"there is nothing to multiply in x of shape {tuple(x.shape)}."
    if bias is not None and (bias.shape != weight.shape[:1] or bias.dtype != x.dtype or not bias.is_cpu):
        return f"bias must be ({weight.shape[0]},) in {x.dtype}; got {tuple(bias.shape)} in {bias.dtype}."
    if torch.is_autocast_enabled("cpu"):
        return "under autocast the product is PyTorch's, in the dtype of autocast."
    return unfit(*tensors)


def _fake(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@light_op("quantized_linear.many", _fake)
def _tiled(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    outer, inner = weight.shape
    step = max(1, TILE // (inner * x.element_size()))
    pieces = [slice(low, min(low + step, outer)) for low in range(0, outer, step)]
    with torch.no_grad():
        if len(pieces) == 1:
            return _tile(x, weight, scale, bias)
        y = x.new_empty(x.shape[0], outer)
        for piece in pieces:
            y[:, piece] = _tile(x, weight[piece], scale[piece], None if bias is None else bias[piece])
        return y


OP = torch.ops.hippodrome.quantized_linear.many
"""What ``_tiled`` is to the dispatcher."""


def _tile(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    if x.dtype == torch.float32:
        return linear(x, weight * scale[:, None], bias)
    y = linear(x, weight.to(x.dtype)).mul_(scale)
    return y if bias is None else y.add_(bias)


def quantized_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """The outputs; arguments as at the door."""
    y: Tensor = _tiled(x.reshape(-1, x.shape[-1]), weight, scale, bias)
    return y.view(*x.shape[:-1], weight.shape[0])
