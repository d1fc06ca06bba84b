"""Root-mean-square norm on the GPU: custom ops around the Triton kernels."""

from typing import Any

import torch
from torch import Tensor

from hippodrome.ops import _triton
from hippodrome.ops._custom import register_second_order
from hippodrome.ops.rms_norm import torch_
from hippodrome.ops.rms_norm.examples import inputs

NAME = "triton"
LONGEST = 32768
"""Channels that a program can hold at once."""
AT_ONCE = 2048
"""Numbers of one tensor that a program takes at once: as many rows as fit, one at least."""


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels run on CUDA devices, on each after they have agreed with the torch backend there once."""
    sentence = _triton.refusal(*tensors)
    if sentence is None and tensors[0] is not None and tensors[0].shape[-1] > LONGEST:
        sentence = f"the Triton kernels hold a row of up to {LONGEST} channels; got {tensors[0].shape[-1]}."
    return sentence or _triton.trusted("rms_norm", _triton.device_index(*tensors), _check)


def _check(device: torch.device) -> None:
    _triton.agree(_fast, _plain, inputs(d=3 * 80), device)


def _fast(x: Tensor, weight: Tensor, z: Tensor) -> tuple[Tensor]:
    return (rms_norm(x, weight, z, 1e-5, 3),)


def _plain(x: Tensor, weight: Tensor, z: Tensor) -> tuple[Tensor]:
    return (torch_.rms_norm(x, weight, z, 1e-5, 3),)


def _plan(x: Tensor, groups: int) -> dict[str, int]:
    """How many rows a program takes at once, and warps for sixteen numbers a thread."""
    run = _triton.power(x.shape[1] // groups)
    rows = min(max(1, AT_ONCE // run), 16)
    return {"BR": rows, "BD": run, "num_warps": min(max(rows * run // 512, 1), 16)}


@torch.library.custom_op("hippodrome::rms_norm_triton", mutates_args=())
def _forward(x: Tensor, weight: Tensor, z: Tensor, eps: float, groups: int) -> Tensor:
    from hippodrome.ops.rms_norm import _triton_kernel as kernel

    rows, d = x.shape
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if not x.numel():
        return y
    gated, plan = z.numel() > 0, _plan(x, groups)
    x, z = _triton.rows(x), _triton.rows(z)
    with _triton.on(x):
        kernel.forward[(-(-rows // plan["BR"]), groups)](
            x,
            weight.contiguous(),
            z,
            y,
            x.stride(0),
            z.stride(0),
            rows,
            d,
            d // groups,
            EPS=eps,
            GATED=gated,
            ACC=kernel.wide(x.dtype),
            **plan,
        )
    return y


@_forward.register_fake
def _(x, weight, z, eps, groups):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape)


@torch.library.custom_op("hippodrome::rms_norm_triton_backward", mutates_args=())
def _backward(
    grad_y: Tensor, x: Tensor, weight: Tensor, z: Tensor, eps: float, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    from hippodrome.ops.rms_norm import _triton_kernel as kernel

    rows, d = x.shape
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grad_z = torch.empty(z.shape, dtype=z.dtype, device=x.device)
    if not x.numel():
        return grad_x, torch.zeros(weight.shape, dtype=weight.dtype, device=x.device), grad_z
    gated, plan = z.numel() > 0, _plan(x, groups)
    x, z, grad_y = _triton.rows(x), _triton.rows(z), _triton.rows(grad_y)
    programs = min(-(-rows // plan["BR"]), max(1, 4 * _triton.processors(x) // groups))
    partial = torch.empty((programs, d), dtype=_triton.wide(x.dtype), device=x.device)
    with _triton.on(x):
        kernel.backward[(programs, groups)](
            grad_y,
            x,
            weight.contiguous(),
            z,
            grad_x,
            grad_z,
            partial,
            grad_y.stride(0),
            x.stride(0),
            z.stride(0),
            rows,
            d,
            d // groups,
            EPS=eps,
            GATED=gated,
            ACC=kernel.wide(x.dtype),
            **plan,
        )
    # Summed by PyTorch, in an order of its own that is the same in every run.
    return grad_x, partial.sum(0).to(weight.dtype), grad_z


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


def rms_norm(x: Tensor, weight: Tensor, z: Tensor | None, eps: float, groups: int) -> Tensor:
    """The norm; arguments as at the door."""
    dtype = x.dtype if x.dtype.itemsize == 2 else torch.promote_types(x.dtype, weight.dtype)
    gate = x.new_zeros((0, 0), dtype=dtype) if z is None else _flattened(z.to(dtype))
    return _forward(_flattened(x.to(dtype)), weight, gate, eps, groups).to(x.dtype).view(x.shape)


def _flattened(x: Tensor) -> Tensor:
    return x.flatten(0, -2) if x.dim() > 1 else x[None]
