"""SSD on the GPU: custom ops around the Triton kernels."""

from typing import Any

import torch
from torch import Tensor

from hippodrome.ops import _triton
from hippodrome.ops._custom import register_second_order
from hippodrome.ops.ssd import _triton_launch, torch_
from hippodrome.ops.ssd.examples import inputs

NAME = "triton"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels run on CUDA devices, on each after they have agreed with the torch backend there once."""
    sentence = _triton.refusal(*tensors)
    if sentence is not None:
        return sentence
    index, x = _triton.device_index(*tensors), tensors[0]
    if x is not None and x.dtype.itemsize == 2:
        return _triton.trusted("ssd in 16 bits", index, _check_halves)
    return _triton.trusted("ssd", index, _check)


def _check(device: torch.device) -> None:
    _triton.agree(_fast, _plain, _small(), device)


def _check_halves(device: torch.device) -> None:
    """bfloat16 has other instructions for its products, and is held to its own digits."""

    def narrow(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *rest: Any) -> tuple[Any, ...]:
        return x.bfloat16(), dt, A, B.bfloat16(), C.bfloat16(), *rest

    def rounded(*z: Any) -> tuple[Any, ...]:
        return tuple(x if x is None else x.to(y.dtype) for x, y in zip(narrow(*z), z, strict=True))

    _triton.agree(lambda *z: _fast(*narrow(*z)), lambda *z: _plain(*rounded(*z)), _small(), device, 5e-2)


def _small() -> tuple[Tensor | None, ...]:
    """Arguments for whose sizes, of whole sixteens but no whole tiles, most calls need the same kernels."""
    return inputs(b=1, t=_triton_launch.CHUNK + 9, h=2, p=48, n=80, g=1, with_resets=False)


def _fast(*z: Any) -> tuple[Tensor, Tensor]:
    arguments: Any = (*z, _triton_launch.CHUNK)
    return ssd(*arguments)


def _plain(*z: Any) -> tuple[Tensor, Tensor]:
    arguments: Any = (*z, _triton_launch.CHUNK)
    return torch_.ssd(*arguments)


@torch.library.custom_op("hippodrome::ssd_triton", mutates_args=())
def _forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    state: Tensor,
    resets: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    return _triton_launch.outputs(x, dt, A, B, C, D, state, resets, chunk)


@_forward.register_fake
def _(x, dt, A, B, C, D, state, resets, chunk):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape), state.new_empty(state.shape)


@torch.library.custom_op("hippodrome::ssd_triton_backward", mutates_args=())
def _backward(
    grad_y: Tensor,
    grad_last: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    state: Tensor,
    resets: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return grad_x, *_triton_launch.gradients(
        grad_y, grad_last, x, dt, A, B, C, D, state, resets, chunk, grad_x
    )


@_backward.register_fake
def _(grad_y, grad_last, x, dt, A, B, C, D, state, resets, chunk):  # type: ignore[no-untyped-def]
    return tuple(z.new_empty(z.shape) for z in (x, dt, A, B, C, D, state))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.chunk = inputs
    ctx.save_for_backward(*tensors)


def _gradient(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad_y, grad_last, *ctx.saved_tensors, ctx.chunk), None, None)


def _form(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor, resets: Tensor
) -> tuple[Tensor, Tensor]:
    skip, marks = D if D.numel() else None, resets if resets.numel() else None
    return torch_.ssd(x, dt, A, B, C, skip, state, marks, torch_.CHUNK)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=2, inputs=8)


def _parts(xBC: Tensor, heads: int, groups: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """x, B and C out of one tensor, as views."""
    x, B, C = xBC.split([xBC.shape[-1] - 2 * groups * n, groups * n, groups * n], -1)
    return x.unflatten(-1, (heads, -1)), B.unflatten(-1, (groups, n)), C.unflatten(-1, (groups, n))


@torch.library.custom_op("hippodrome::ssd_triton_packed", mutates_args=())
def _forward_packed(
    xBC: Tensor,
    dt: Tensor,
    A: Tensor,
    D: Tensor,
    state: Tensor,
    resets: Tensor,
    groups: int,
    n: int,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    x, B, C = _parts(xBC, dt.shape[-1], groups, n)
    return _triton_launch.outputs(x, dt, A, B, C, D, state, resets, chunk)


@_forward_packed.register_fake
def _(xBC, dt, A, D, state, resets, groups, n, chunk):  # type: ignore[no-untyped-def]
    return xBC.new_empty((*dt.shape, state.shape[2])), state.new_empty(state.shape)


@torch.library.custom_op("hippodrome::ssd_triton_packed_backward", mutates_args=())
def _backward_packed(
    grad_y: Tensor,
    grad_last: Tensor,
    xBC: Tensor,
    dt: Tensor,
    A: Tensor,
    D: Tensor,
    state: Tensor,
    resets: Tensor,
    groups: int,
    n: int,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    given = torch.empty(xBC.shape, dtype=xBC.dtype, device=xBC.device)
    (x, B, C), (to_x, to_b, to_c) = (_parts(z, dt.shape[-1], groups, n) for z in (xBC, given))
    found = _triton_launch.gradients(grad_y, grad_last, x, dt, A, B, C, D, state, resets, chunk, to_x)
    grad_dt, grad_a, grad_b, grad_c, grad_d, grad_state = found
    to_b.copy_(grad_b)
    to_c.copy_(grad_c)
    return given, grad_dt, grad_a, grad_d, grad_state


@_backward_packed.register_fake
def _(grad_y, grad_last, xBC, dt, A, D, state, resets, groups, n, chunk):  # type: ignore[no-untyped-def]
    return tuple(z.new_empty(z.shape) for z in (xBC, dt, A, D, state))


def _setup_packed(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.options = inputs[6:]


def _gradient_packed(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward_packed(grad_y, grad_last, *ctx.saved_tensors, *ctx.options), None, None, None, None)


def _form_packed(
    xBC: Tensor, dt: Tensor, A: Tensor, D: Tensor, state: Tensor, resets: Tensor, groups: int, n: int
) -> tuple[Tensor, Tensor]:
    x, B, C = _parts(xBC, dt.shape[-1], groups, n)
    return _form(x, dt, A, B, C, D, state, resets)


_forward_packed.register_autograd(_gradient_packed, setup_context=_setup_packed)
register_second_order(_backward_packed, _form_packed, outputs=2, inputs=6, options=2)


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    resets: Tensor | None,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Outputs and last state; arguments as at the door."""
    dtype = _storage(x, dt, A, B, C)
    last_axis, narrow = (x.shape[-1], B.shape[-1]), (z.to(dtype) for z in (B, C))
    sizes, rates, *rest = _widened(x, dt, A, D, initial_state, resets, dtype, last_axis)
    y, last = _forward(x.to(dtype), sizes, rates, *narrow, *rest, chunk)
    return y.to(x.dtype), last.to(_triton.wide(x.dtype))


def ssd_packed(
    xBC: Tensor,
    dt: Tensor,
    A: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    resets: Tensor | None,
    groups: int,
    n: int,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """The same with x, B and C side by side in one tensor, and so in one gradient."""
    dtype = _storage(xBC, dt, A)
    p = (xBC.shape[-1] - 2 * groups * n) // dt.shape[-1]
    rest = _widened(xBC, dt, A, D, initial_state, resets, dtype, (p, n))
    y, last = _forward_packed(xBC.to(dtype), *rest, groups, n, chunk)
    return y.to(xBC.dtype), last.to(_triton.wide(xBC.dtype))


def _storage(x: Tensor, *others: Tensor) -> torch.dtype:
    """The dtype of all that is as large as x: its own where that has 16 bits, else the widest there is."""
    dtype = x.dtype
    for z in others if dtype.itemsize > 2 else ():
        dtype = torch.promote_types(dtype, z.dtype)
    return dtype


def _widened(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    D: Tensor | None,
    state: Tensor | None,
    resets: Tensor | None,
    dtype: torch.dtype,
    last: tuple[int, int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dt, A, D, state and resets, tensors for what is absent; steps of 16 bits stay as they are stored."""
    wide = _triton.wide(dtype)
    sizes = dt if dt.dtype == dtype else dt.to(wide)
    skip = x.new_zeros(0, dtype=wide) if D is None else D.to(wide)
    first = x.new_zeros((x.shape[0], dt.shape[-1], *last), dtype=wide) if state is None else state.to(wide)
    marks = x.new_zeros((0, 0), dtype=torch.bool) if resets is None else resets
    return sizes, A.to(wide), skip, first, marks
