"""Few rows through int8 weights on the CPU, and few rows of an int8 table: ops around the Numba kernels."""

import ctypes

import torch
from torch import Tensor

from hippodrome.ops._light import light_op, unfit
from hippodrome.ops._threads import run_bytes

NAME = "numba"
ROWS = 8
"""Rows up to which the weights' bytes set the time; for more their tiles are widened once for all."""
IDS = 32
"""Rows of a table up to which the kernel looks them up."""
DTYPES = (torch.float32, torch.bfloat16)


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernel takes a few rows in float32 and bfloat16 on the CPU, where no gradient is wanted."""
    if torch.compiler.is_compiling():
        return "inside a compiler the product is the compiler's to fuse."
    x, weight, scale, bias = tensors
    assert x is not None
    assert weight is not None
    assert scale is not None
    if not (x.is_cpu and weight.is_cpu and scale.is_cpu):
        return f"the Numba kernel runs on the CPU; got tensors on {x.device} and {weight.device}."
    if x.dtype not in DTYPES or scale.dtype != torch.float32:
        return f"the kernel takes x in float32 or bfloat16, a float32 scale; got {x.dtype} and {scale.dtype}."
    if x.dim() == 0 or x.numel() > ROWS * x.shape[-1] or not x.numel():
        return f"the kernel is for 1 to {ROWS} rows; got x of shape {tuple(x.shape)}."
    if weight.stride(1) != 1 or not weight.shape[0] or scale.stride(0) != 1:
        return f"weight and scale must lie in order; got weight of strides {weight.stride()}."
    if bias is not None and (bias.shape != weight.shape[:1] or bias.dtype != x.dtype or not bias.is_cpu):
        return f"bias must be ({weight.shape[0]},) in {x.dtype}; got {tuple(bias.shape)} in {bias.dtype}."
    if torch.is_autocast_enabled("cpu"):
        return "under autocast the product is PyTorch's, in the dtype of autocast."
    return unfit(*tensors)


def _fake(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@light_op("quantized_linear", _fake)
def _few(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    from hippodrome.ops.quantized_linear import _numba_kernel as kernel

    outer, inner = weight.shape
    y = x.new_empty((x.shape[0], outer))
    if x.stride(1) != 1:
        x = x.contiguous()
    if bias is not None and bias.stride(0) != 1:
        bias = bias.contiguous()
    sizes = (x.shape[0], inner, outer, x.stride(0), weight.stride(0))
    shift = 0 if bias is None else bias.data_ptr()
    addresses = (x.data_ptr(), weight.data_ptr(), scale.data_ptr(), shift, y.data_ptr())
    tiles = -(-outer // kernel.OUTPUTS)
    run_bytes(kernel.product, tiles, weight.nbytes, sizes, addresses, kernel.SAMPLES[x.dtype])
    return y


def quantized_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """The outputs; arguments as at the door."""
    if x.dim() != 2:
        few: Tensor = _few(x.reshape(-1, x.shape[-1]), weight, scale, bias)
        return few.view(*x.shape[:-1], weight.shape[0])
    y: Tensor = _few(x, weight, scale, bias)
    return y


def rows_refusal(ids: Tensor, weight: Tensor, scale: Tensor, dtype: torch.dtype) -> str | None:
    """The kernel looks up a few rows on the CPU."""
    if torch.compiler.is_compiling():
        return "inside a compiler the lookup is the compiler's to fuse."
    if not (ids.is_cpu and weight.is_cpu and scale.is_cpu):
        return f"the Numba kernel runs on the CPU; got tensors on {ids.device} and {weight.device}."
    if ids.dtype != torch.int64 or scale.dtype != torch.float32 or dtype not in DTYPES:
        return f"the kernel takes int64 and gives float32 or bfloat16; got {ids.dtype} and {dtype}."
    if not 0 < ids.numel() <= IDS:
        return f"the kernel is for 1 to {IDS} rows of the table; got {ids.numel()}."
    if weight.stride(1) != 1 or scale.stride(0) != 1:
        return f"weight and scale must lie in order; got weight of strides {weight.stride()}."
    return unfit(ids, weight, scale)


def _fake_rows(ids: Tensor, weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return ids.new_empty(ids.shape[0], weight.shape[1], dtype=dtype)


@light_op("quantized_rows", _fake_rows)
def _rows(ids: Tensor, weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    from hippodrome.ops.quantized_linear import _numba_kernel as kernel

    outer, inner = weight.shape
    if ids.stride(0) != 1:
        ids = ids.contiguous()
    # Read past PyTorch: a tape refuses what goes by values, and this goes on alike whatever they are. At a
    # replay the kernel, which looks too, fails.
    asked = (ctypes.c_int64 * ids.shape[0]).from_address(ids.data_ptr())[:]
    if not 0 <= min(asked) <= max(asked) < outer:
        raise IndexError(f"the table has rows 0 to {outer - 1}; asked for {min(asked)} to {max(asked)}")
    y = torch.empty((ids.shape[0], inner), dtype=dtype)
    sizes = (inner, outer, weight.stride(0))
    addresses = (ids.data_ptr(), weight.data_ptr(), scale.data_ptr(), y.data_ptr())
    run_bytes(kernel.rows_of, ids.shape[0], y.nbytes, sizes, addresses, kernel.SAMPLES[dtype])
    return y


def quantized_rows(ids: Tensor, weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of the table; arguments as at the door."""
    if ids.dim() != 1:
        few: Tensor = _rows(ids.reshape(-1), weight, scale, dtype)
        return few.view(*ids.shape, weight.shape[1])
    y: Tensor = _rows(ids, weight, scale, dtype)
    return y
