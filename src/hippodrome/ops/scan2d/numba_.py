"""Scan over a grid on the CPU: custom ops around the fused Numba kernels, a double loop over the cells."""

from math import gcd
from typing import Any

import torch
from torch import Tensor

from hippodrome.ops._arrays import dense, flat
from hippodrome.ops._custom import register_second_order
from hippodrome.ops._threads import run_tiles
from hippodrome.ops.scan2d import torch_

NAME = "numba"
NEAR = 4096
"""Numbers of the states of a tile, which are to stay in the nearest cache."""


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take real floats on the CPU; what is narrower than float32 is widened at the door."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    return None


def _plan(u: Tensor) -> tuple[int, tuple[int, int, int, int]]:
    """Tiles, and the kernels' sizes (t, v, d, width of a tile)."""
    (b, t, v, _, d), threads = u.shape, torch.get_num_threads()
    widest = max(16, NEAR // (2 * (v + 1)) // 16 * 16)
    pieces = max(threads // gcd(b, threads), -(-d // widest))
    width = max(-(-d // (pieces * 16)) * 16, 16)
    return b * -(-d // width), (t, v, d, width)


@torch.library.custom_op("hippodrome::scan2d", mutates_args=())
def _forward(a: Tensor, u: Tensor, state: Tensor, edge: Tensor, resets: Tensor) -> Tensor:
    from hippodrome.ops.scan2d import _numba_kernel as kernel

    h = torch.empty(u.shape, dtype=u.dtype)
    if not h.numel():
        return h
    (tiles, sizes), (a_array, a_strides), (u_array, u_strides) = _plan(u), flat(a), flat(u)
    run_tiles(
        kernel.forward,
        tiles,
        sizes,
        a_strides,
        u_strides,
        a_array,
        u_array,
        *(dense(z) for z in (state, edge, resets, h)),
    )
    return h


@_forward.register_fake
def _(a, u, state, edge, resets):  # type: ignore[no-untyped-def]
    return u.new_empty(u.shape)


@torch.library.custom_op("hippodrome::scan2d_backward", mutates_args=())
def _backward(
    grad_h: Tensor, a: Tensor, u: Tensor, state: Tensor, edge: Tensor, resets: Tensor, h: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from hippodrome.ops.scan2d import _numba_kernel as kernel

    grads = tuple(torch.empty(z.shape, dtype=z.dtype) for z in (a, u, state, edge))
    if not h.numel():
        return grads[0].zero_(), grads[1], grads[2].zero_(), grads[3].zero_()
    (tiles, sizes), (a_array, a_strides), (g_array, g_strides) = _plan(u), flat(a), flat(grad_h)
    run_tiles(
        kernel.backward,
        tiles,
        sizes,
        a_strides,
        g_strides,
        a_array,
        g_array,
        *(dense(z) for z in (state, edge, resets, h, *grads)),
    )
    return grads  # type: ignore[return-value]  # four of them


@_backward.register_fake
def _(grad_h, a, u, state, edge, resets, h):  # type: ignore[no-untyped-def]
    return tuple(z.new_empty(z.shape) for z in (a, u, state, edge))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _gradient(ctx: Any, grad_h: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad_h, *ctx.saved_tensors), None)


def _form(a: Tensor, u: Tensor, state: Tensor, edge: Tensor, resets: Tensor) -> tuple[Tensor]:
    left, marks = (z if z.numel() else None for z in (edge, resets))
    return (torch_.scan2d(a, u, state, left, marks)[0],)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=1, inputs=5)


def scan2d(
    a: Tensor, u: Tensor, initial_state: Tensor | None, edge: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States and those of the last time; arguments as at the door."""
    dtype = u.dtype
    wide = torch.promote_types(torch.promote_types(dtype, a.dtype), torch.float32)
    b, t, v, _, d = u.shape
    state = u.new_zeros((b, v, 2, d), dtype=wide) if initial_state is None else initial_state.to(wide)
    left = u.new_zeros((0, 0, 2, d), dtype=wide) if edge is None else edge.to(wide)
    marks = u.new_zeros((0, 0), dtype=torch.bool) if resets is None else resets
    # An expanded tensor is read where it lies, each cell the same numbers.
    a = a.to(wide)
    h = _forward(a.expand(b, t, v, 4, d) if a.dim() == 2 else a, u.to(wide), state, left, marks)
    return h.to(dtype), h[:, -1].to(torch.promote_types(dtype, torch.float32)).clone()
