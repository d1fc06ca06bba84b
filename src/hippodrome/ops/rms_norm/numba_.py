"""Root-mean-square norm on the CPU: custom ops around the fused Numba kernels."""

from typing import Any

import torch
from torch import Tensor

from hippodrome.ops._arrays import dense, flat
from hippodrome.ops._custom import register_second_order
from hippodrome.ops._threads import run_tiles
from hippodrome.ops.rms_norm import torch_

NAME = "numba"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels read bfloat16, float32 and float64 on the CPU; float16 is widened at the door."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    return None


@torch.library.custom_op("hippodrome::rms_norm", mutates_args=())
def _forward(x: Tensor, weight: Tensor, z: Tensor, eps: float, groups: int) -> Tensor:
    from hippodrome.ops.rms_norm import _numba_kernel as kernel

    y = torch.empty(x.shape, dtype=x.dtype)
    if x.numel():
        rows, d = x.shape
        tiles = -(-rows // kernel.ROWS)
        run_tiles(
            kernel.forward, tiles, *_rows(x), dense(weight), *_rows(z), (rows, d, groups), eps, dense(y)
        )
    return y


@_forward.register_fake
def _(x, weight, z, eps, groups):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape)


@torch.library.custom_op("hippodrome::rms_norm_backward", mutates_args=())
def _backward(
    grad_y: Tensor, x: Tensor, weight: Tensor, z: Tensor, eps: float, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    from hippodrome.ops.rms_norm import _numba_kernel as kernel

    grad_x, grad_z = torch.empty(x.shape, dtype=x.dtype), torch.empty(z.shape, dtype=z.dtype)
    if not x.numel():
        return grad_x, torch.zeros(weight.shape, dtype=weight.dtype), grad_z
    rows, d = x.shape
    tiles = -(-rows // kernel.ROWS)
    partial = torch.empty(tiles, d, dtype=weight.dtype)
    run_tiles(
        kernel.backward,
        tiles,
        *_rows(grad_y),
        *_rows(x),
        dense(weight),
        *_rows(z),
        (rows, d, groups),
        eps,
        dense(grad_x),
        dense(grad_z),
        dense(partial),
    )
    # Summed by numpy, in one order whatever the number of threads.
    return grad_x, torch.from_numpy(partial.numpy().sum(0)), grad_z


@_backward.register_fake
def _(grad_y, x, weight, z, eps, groups):  # type: ignore[no-untyped-def]
    return tuple(v.new_empty(v.shape) for v in (x, weight, z))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.eps, ctx.groups = inputs
    ctx.save_for_backward(*tensors)


def _gradient(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad_y, *ctx.saved_tensors, ctx.eps, ctx.groups), None, None)


def _form(x: Tensor, weight: Tensor, z: Tensor, eps: float, groups: int) -> tuple[Tensor]:
    return (torch_.rms_norm(x, weight, z if z.numel() or not x.numel() else None, eps, groups),)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=1, inputs=3, options=2)


def _rows(x: Tensor) -> tuple[Any, int]:
    """The memory of a (rows, d) tensor and the stride of its rows; of an empty one, an empty array."""
    array, strides = flat(x)
    return array, strides[0]


def rms_norm(x: Tensor, weight: Tensor, z: Tensor | None, eps: float, groups: int) -> Tensor:
    """The norm; arguments as at the door."""
    dtype = torch.float32 if x.dtype == torch.float16 else x.dtype
    wide = torch.promote_types(dtype, torch.float32)
    gate = x.new_zeros(0, 0, dtype=dtype) if z is None else _flattened(z.to(dtype))
    return _forward(_flattened(x.to(dtype)), weight.to(wide), gate, eps, groups).to(x.dtype).view(x.shape)


def _flattened(x: Tensor) -> Tensor:
    return x.flatten(0, -2) if x.dim() > 1 else x[None]
