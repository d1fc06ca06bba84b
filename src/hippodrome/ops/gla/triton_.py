"""Gated linear attention on the GPU: custom ops around the Triton kernels."""

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from hippodrome.ops import _triton
from hippodrome.ops._custom import register_second_order
from hippodrome.ops.gla import torch_
from hippodrome.ops.gla.examples import inputs

NAME = "triton"
INPUTS = 6
LEAST = 16
"""The least side of a product, and the channels between whose pairs of steps a program holds all decays."""


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels run on CUDA devices, on each after they have agreed with the torch backend there once."""
    return _triton.refusal(*tensors) or _triton.trusted("gla", _triton.device_index(*tensors), _check)


def _check(device: torch.device) -> None:
    _triton.agree(gla, torch_.gla, inputs(t=150, h=3, k=40, v=72), device)


def _side(size: int, most: int) -> int:
    """A power of two that covers the size, from the least side of a product to ``most``."""
    return min(max(_triton.power(size), LEAST), most)


def _settings(x: Tensor, state: Tensor, resets: Tensor) -> dict[str, Any]:
    """Types and precision: TF32 in three parts has nearly float32's digits, one part those of 16 bits."""
    import triton.language as tl

    from hippodrome.ops.gla._triton_kernel import STEPS

    wide = state.dtype == torch.float64
    return {
        "STEPS": STEPS,
        "HAS_RESETS": resets.numel() > 0,
        "ACC": tl.float64 if wide else tl.float32,
        "PRECISION": "ieee" if wide else "tf32x3" if x.dtype == torch.float32 else "tf32",
        "num_warps": 4,
    }


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for x in tensors for stride in x.stride()[:3]]


def _boundaries(
    x: Tensor, w: Tensor, log_decay: Tensor, state: Tensor, resets: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """What each chunk starts from, (b, h, chunks, k, v), and what the last one leaves."""
    from hippodrome.ops.gla import _triton_kernel as kernel

    b, t, h, size = x.shape
    values = w.shape[3]
    before = state.new_empty(b, h, -(-t // kernel.STEPS), size, values)
    last = torch.empty_like(state)
    rows, columns = _side(size, 32), _side(values, 32)
    settings = _settings(w, state, resets)
    settings["num_warps"] = 2
    kernel.states[(b * h, -(-size // rows), -(-values // columns))](
        *(x, w, log_decay, resets, state, before, last),
        *_strides(x, w, log_decay),
        *(t, h, size, values),
        BK=rows,
        BV=columns,
        REVERSE=reverse,
        **settings,
    )
    return before, last


def _outputs(
    q: Tensor,
    k: Tensor,
    w: Tensor,
    log_decay: Tensor,
    states: Tensor,
    resets: Tensor,
    y: Tensor,
    reverse: bool,
) -> None:
    from hippodrome.ops.gla import _triton_kernel as kernel

    b, t, h, size = q.shape
    columns = _side(w.shape[3], 64)
    kernel.outputs[(b * -(-t // kernel.STEPS), h, -(-w.shape[3] // columns))](
        *(q, k, w, log_decay, resets, states, y),
        *_strides(q, k, w, log_decay),
        *(t, h, size, w.shape[3]),
        BK=LEAST,
        BV=columns,
        REVERSE=reverse,
        **_settings(w, states, resets),
    )


@torch.library.custom_op("hippodrome::gla_triton", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, resets: Tensor
) -> tuple[Tensor, Tensor]:
    if not v.numel() or not k.numel():
        return torch.zeros(v.shape, dtype=v.dtype, device=v.device), state.clone()
    q, k, v, log_decay = (_triton.rows(x) for x in (q, k, v, log_decay))
    marks = resets.contiguous().view(torch.uint8)
    y = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    with _triton.on(v):
        before, last = _boundaries(k, v, log_decay, state.contiguous(), marks, False)
        _outputs(q, k, v, log_decay, before, marks, y, False)
    return y, last


@_forward.register_fake
def _(q, k, v, log_decay, state, resets):  # type: ignore[no-untyped-def]
    return v.new_empty(v.shape), state.new_empty(state.shape)


@torch.library.custom_op("hippodrome::gla_triton_backward", mutates_args=())
def _backward(
    grad_y: Tensor,
    grad_last: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor,
    resets: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from hippodrome.ops.gla import _triton_kernel as kernel

    grads = tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v, log_decay))
    if not v.numel() or not k.numel():
        return (*(x.zero_() for x in grads), grad_last.clone())  # type: ignore[return-value]
    q, k, v, log_decay, grad_y = (_triton.rows(x) for x in (q, k, v, log_decay, grad_y))
    marks = resets.contiguous().view(torch.uint8)
    b, t, h, size = k.shape
    with _triton.on(v):
        before, _ = _boundaries(k, v, log_decay, state.contiguous(), marks, False)
        after, grad_state = _boundaries(q, grad_y, log_decay, grad_last.contiguous(), marks, True)
        _outputs(q, k, grad_y, log_decay, after, marks, grads[2], True)
        kernel.grad_keys[(b * -(-t // kernel.STEPS), h, -(-size // LEAST))](
            *(q, k, v, log_decay, marks, before, after, grad_y, grads[0], grads[1], grads[3]),
            *_strides(q, k, v, log_decay, grad_y),
            *(t, h, size, v.shape[3]),
            BK=LEAST,
            BV=_side(v.shape[3], 32),
            **_settings(v, state, marks),
        )
    return (*grads, grad_state)  # type: ignore[return-value]


@_backward.register_fake
def _(grad_y, grad_last, *inputs):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in inputs[:5])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad_y, grad_last, *ctx.saved_tensors), None)


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
    state = v.new_zeros(b, h, size, v.shape[3]) if initial_state is None else initial_state
    marks = v.new_zeros((0, 0), dtype=torch.bool) if resets is None else resets
    return _forward(q, k, v, log_decay, state.to(wide), marks)
