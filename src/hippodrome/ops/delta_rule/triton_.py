"""The delta rule on the GPU: custom ops around the Triton kernels."""

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from hippodrome.ops import _triton
from hippodrome.ops._custom import register_second_order
from hippodrome.ops.delta_rule import torch_
from hippodrome.ops.delta_rule.examples import inputs

NAME = "triton"
INPUTS = 7
LEAST = 16
"""The least side of a product."""
KEYS = 256
"""Channels of a key at most, half as many beyond 16 bits: a program holds a state's rows for all of them."""


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels run on CUDA devices, on each after they have agreed with the torch backend there once."""
    sentence = _triton.refusal(*tensors)
    if sentence is None and tensors[1] is not None and tensors[2] is not None:
        size, most = tensors[1].shape[-1], KEYS if tensors[2].dtype.itemsize == 2 else KEYS // 2
        if size > most:
            sentence = f"the Triton kernels take keys of at most {most} channels in this dtype; got {size}."
    return sentence or _triton.trusted("delta_rule", _triton.device_index(*tensors), _check)


def _check(device: torch.device) -> None:
    _triton.agree(delta_rule, torch_.delta_rule, inputs(t=150, h=3, k=40, v=72), device)


def _side(size: int, most: int) -> int:
    """A power of two that covers the size, from the least side of a product to ``most``."""
    return min(max(_triton.power(size), LEAST), most)


def _settings(
    k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, resets: Tensor, most: int
) -> dict[str, Any]:
    """Types, precision and tiles: TF32 in three parts has nearly float32's digits, one part those of 16 bits.

    Tiles of v are at most ``most`` wide, and half of that or less for long keys.
    """
    import triton.language as tl

    from hippodrome.ops.delta_rule._triton_kernel import STEPS

    wide, keys = state.dtype == torch.float64, _side(k.shape[3], KEYS)
    return {
        "STEPS": STEPS,
        "BK": keys,
        "BV": _side(v.shape[3], max(LEAST, most * 64 // max(keys, 64))),
        "HAS_GATE": log_decay.numel() > 0,
        "HAS_RESETS": resets.numel() > 0,
        "ACC": tl.float64 if wide else tl.float32,
        "PRECISION": "ieee" if wide else "tf32x3" if v.dtype == torch.float32 else "tf32",
        "num_warps": 4 if keys < 64 else 8,
    }


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for x in tensors for stride in (x.stride()[:3] if x.numel() else (0, 0, 0))]


def _states(
    k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, state: Tensor, resets: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The inverse and the state before each chunk, all writes, and the last state."""
    from hippodrome.ops.delta_rule import _triton_kernel as kernel

    b, t, h, size = k.shape
    values, chunks = v.shape[3], -(-t // kernel.STEPS)
    inverse = state.new_empty(b, h, chunks, kernel.STEPS, kernel.STEPS)
    before, last = state.new_empty(b, h, chunks, size, values), torch.empty_like(state)
    writes = state.new_empty(b, h, t, values)
    settings = _settings(k, v, log_decay, state, resets, 32)
    columns = settings.pop("BV")
    kernel.invert[(b * chunks, h)](
        *(k, beta, log_decay, resets, inverse),
        *_strides(k, beta, log_decay),
        *(t, h, size),
        **settings,
    )
    kernel.states[(b * h, -(-values // columns))](
        *(k, v, beta, log_decay, resets, inverse, state, before, writes, last),
        *_strides(k, v, beta, log_decay),
        *(t, h, size, values),
        BV=columns,
        **settings,
    )
    return inverse, before, writes, last


@torch.library.custom_op("hippodrome::delta_rule_triton", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, state: Tensor, resets: Tensor
) -> tuple[Tensor, Tensor]:
    from hippodrome.ops.delta_rule import _triton_kernel as kernel

    if not v.numel() or not k.numel():
        return torch.zeros(v.shape, dtype=v.dtype, device=v.device), state.clone()
    q, k, v = (_triton.rows(x) for x in (q, k, v))
    marks = resets.contiguous().view(torch.uint8)
    b, t, h, size = k.shape
    y = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    with _triton.on(v):
        _, before, writes, last = _states(k, v, beta, log_decay, state.contiguous(), marks)
        settings = _settings(k, v, log_decay, state, marks, 64)
        kernel.outputs[(b * -(-t // kernel.STEPS), h, -(-v.shape[3] // settings["BV"]))](
            *(q, k, log_decay, marks, before, writes, y),
            *_strides(q, k, log_decay),
            *(t, h, size, v.shape[3]),
            **settings,
        )
    return y, last


@_forward.register_fake
def _(q, k, v, beta, log_decay, state, resets):  # type: ignore[no-untyped-def]
    return v.new_empty(v.shape), state.new_empty(state.shape)


@torch.library.custom_op("hippodrome::delta_rule_triton_backward", mutates_args=())
def _backward(
    grad_y: Tensor,
    grad_last: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor,
    state: Tensor,
    resets: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from hippodrome.ops.delta_rule import _triton_kernel as kernel

    inputs = (q, k, v, beta, log_decay)
    grads = tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in inputs)
    if not v.numel() or not k.numel():
        return (*(x.zero_() for x in grads), grad_last.clone())  # type: ignore[return-value]
    q, k, v, grad_y = (_triton.rows(x) for x in (q, k, v, grad_y))
    marks = resets.contiguous().view(torch.uint8)
    b, t, h, size = k.shape
    values, chunks = v.shape[3], -(-t // kernel.STEPS)
    with _triton.on(v):
        inverse, before, writes, _ = _states(k, v, beta, log_decay, state.contiguous(), marks)
        after, grad_state = torch.empty_like(before), torch.empty_like(before[:, :, 0])
        grad_rest = torch.empty_like(writes)
        settings = _settings(k, v, log_decay, state, marks, 32)
        kernel.states_back[(b * h, -(-values // settings["BV"]))](
            *(q, k, beta, log_decay, marks, inverse, grad_y, grad_last.contiguous()),
            *(after, grad_rest, grad_state),
            *_strides(q, k, beta, log_decay, grad_y),
            *(t, h, size, values),
            **settings,
        )
        kernel.gradients[(b * chunks, h)](
            *(q, k, v, beta, log_decay, marks, before, after, writes, grad_rest, grad_y, *grads),
            *_strides(q, k, v, beta, log_decay, grad_y),
            *(t, h, size, values),
            **_settings(k, v, log_decay, state, marks, LEAST),
        )
    return (*grads, grad_state)  # type: ignore[return-value]


@_backward.register_fake
def _(grad_y, grad_last, *inputs):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in inputs[:6])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad_y, grad_last, *ctx.saved_tensors), None)


def _form(*inputs: Any) -> tuple[Tensor, Tensor]:
    q, k, v, beta, log_decay, state, resets = inputs
    log_decay, resets = (x if x.numel() else None for x in (log_decay, resets))
    return torch_.delta_rule(q, k, v, beta, log_decay, state, resets)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=2, inputs=INPUTS)


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    initial_state: Tensor | None,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs and last state; arguments as at the door."""
    b, _, h, size = k.shape
    floats = (q, k, v, beta, log_decay, initial_state)
    wide = reduce(torch.promote_types, (x.dtype for x in floats if x is not None), torch.float32)
    state = v.new_zeros(b, h, size, v.shape[3]) if initial_state is None else initial_state
    gate = beta.new_zeros(0, 0, 0) if log_decay is None else log_decay
    marks = v.new_zeros((0, 0), dtype=torch.bool) if resets is None else resets
    return _forward(q, k, v, beta, gate, state.to(wide), marks)
