"""Gated linear attention on the CPU: custom ops around the Numba kernels."""

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from hippodrome.ops._arrays import dense, flat
from hippodrome.ops._custom import register_second_order
from hippodrome.ops._threads import share_tiles
from hippodrome.ops.gla import torch_

NAME = "numba"
INPUTS = 6


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take bfloat16, float32 and float64 on the CPU; float16 is widened at the door."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    return None


def _marks(k: Tensor, v: Tensor) -> int | torch.SymInt:
    """Elements of the saved states: one every 128 steps, its sizes rounded up to whole vectors of 16."""
    b, t, h, size = k.shape
    return b * h * -(-t // 128) * -(-size // 16) * -(-v.shape[3] // 16) * 256


@torch.library.custom_op("hippodrome::gla", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, resets: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    from hippodrome.ops.gla import _numba_kernel as kernel

    b, t, h, size = k.shape
    y, final = v.new_empty(v.shape), state.new_empty(state.shape)
    marks = state.new_empty(_marks(k, v) if save else 0)
    if not y.numel() or not size:
        return y.zero_(), final.copy_(state), marks
    arrays, strides = zip(*(flat(x) for x in (q, k, v, log_decay)), strict=True)
    share_tiles(
        kernel.forward,
        b * h,
        (t, h, size, v.shape[3]),
        strides,
        *(*arrays, dense(state), dense(resets), dense(y), dense(final), dense(marks)),
    )
    return y, final, marks


@_forward.register_fake
def _(q, k, v, log_decay, state, resets, save):  # type: ignore[no-untyped-def]
    marks = _marks(k, v) if save else 0
    return v.new_empty(v.shape), state.new_empty(state.shape), state.new_empty(marks)


@torch.library.custom_op("hippodrome::gla_backward", mutates_args=())
def _backward(
    grad_y: Tensor,
    grad_final: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor,
    resets: Tensor,
    marks: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from hippodrome.ops.gla import _numba_kernel as kernel

    b, t, h, size = k.shape
    grads = tuple(x.new_empty(x.shape) for x in (q, k, v, log_decay))
    grad_state = state.new_empty(state.shape)
    if not v.numel() or not size:
        return (*(x.zero_() for x in grads), grad_state.copy_(grad_final))  # type: ignore[return-value]
    arrays, strides = zip(*(flat(x) for x in (q, k, v, log_decay, grad_y)), strict=True)
    share_tiles(
        kernel.backward,
        b * h,
        (t, h, size, v.shape[3]),
        strides,
        *(*arrays[:4], dense(resets), dense(marks), arrays[4], dense(grad_final)),
        *(*(dense(x) for x in grads), dense(grad_state)),
    )
    return (*grads, grad_state)  # type: ignore[return-value]


@_backward.register_fake
def _(grad_y, grad_final, *inputs):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in inputs[:5])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:INPUTS], output[2])


def _gradient(ctx: Any, grad_y: Tensor, grad_final: Tensor, grad_marks: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, marks = ctx.saved_tensors
    if not marks.numel():
        marks = _forward(*inputs, True)[2]
    return (*_backward(grad_y, grad_final, *inputs, marks), None, None)


def _form(*inputs: Any) -> tuple[Tensor, Tensor]:
    q, k, v, log_decay, state, resets = inputs
    return torch_.gla(q, k, v, log_decay, state, resets if resets.numel() else None)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=2, inputs=INPUTS)


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    initial_state: Tensor | None,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs and last state; arguments as at the door."""
    b, _, h, size = k.shape
    floats = (q, k, v, log_decay, initial_state)
    wide = reduce(torch.promote_types, (x.dtype for x in floats if x is not None), torch.float32)
    # Queries, keys and values are read as bfloat16 where v is; decays and states never are.
    narrow = torch.bfloat16 if v.dtype == torch.bfloat16 and wide == torch.float32 else wide
    state = v.new_zeros(b, h, size, v.shape[3]) if initial_state is None else initial_state
    marks = v.new_zeros((0, 0), dtype=torch.bool) if resets is None else resets
    arguments = (q.to(narrow), k.to(narrow), v.to(narrow), log_decay.to(wide), state.to(wide))
    save = torch.is_grad_enabled() and any(x.requires_grad for x in arguments)
    y, final, _ = _forward(*arguments, marks, save)
    return y.to(v.dtype), final
