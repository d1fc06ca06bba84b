"""Complex linear scan on a GPU: custom ops around the Triton kernels."""

from typing import Any

import torch
from torch import Tensor

from hippodrome.ops import _triton
from hippodrome.ops._custom import register_second_order
from hippodrome.ops.linear_scan.triton_ import Plan, plan
from hippodrome.ops.linear_scan_complex import torch_
from hippodrome.ops.linear_scan_complex.examples import inputs

NAME = "triton"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take float32, 16-bit and float64 tensors, on CUDA devices that pass the self-check."""
    return _triton.refusal(*tensors) or _triton.trusted(
        "linear_scan_complex", _triton.device_index(*tensors), _check
    )


def _check(device: torch.device) -> None:
    """Values and gradients of both forms of a, over several tiles and segments."""
    for constant in (False, True):
        arguments = inputs(2, 300, 20, constant=constant, with_resets=constant)
        _triton.agree(linear_scan_complex, torch_.linear_scan_complex, arguments, device)


def _steps(x: Tensor) -> tuple[int, int]:
    """Strides of rows and of steps; 0 where x is (d, 2), constant in time."""
    return (0, 0) if x.dim() == 2 else (x.stride(0), x.stride(1))


def pairs(x: Tensor) -> Tensor:
    """The tensor itself where its last two axes are dense, else a copy."""
    return x if x.stride(-1) == 1 and (x.stride(-2) == 2 or x.shape[-2] == 1) else x.contiguous()


def _wide(x: Tensor) -> Any:
    import triton.language as tl

    return tl.float64 if x.dtype == torch.float64 else tl.float32


def _run(a: Tensor, x: Tensor, state: Tensor, resets: Tensor, h: Tensor, last: Tensor) -> None:
    """Fill h and last; the state before each segment comes from a scan over the segments."""
    from hippodrome.ops.linear_scan_complex import _triton_kernel as kernel

    cut, a, x = plan(x, 2), pairs(a), pairs(x)
    starts = segment_starts(cut, a, x, state, resets, False)
    kernel.forward[(cut.programs,)](
        *(a, x, starts, resets, h, last, *x.shape[1:3], cut.segments, cut.steps, *_steps(a), *_steps(x)),
        CONSTANT=a.dim() == 2,
        RESETS=resets.numel() > 0,
        T=cut.T,
        D=cut.D,
        STAGES=cut.stages,
        WIDE=_wide(last),
    )


def segment_starts(cut: Plan, a: Tensor, x: Tensor, state: Tensor, resets: Tensor, reverse: bool) -> Tensor:
    """What each segment begins with (b, segments, d, 2), in the order of the scan; contiguous."""
    from hippodrome.ops.linear_scan_complex import _triton_kernel as kernel

    state = state.contiguous()
    if cut.segments == 1:
        return state
    b, t, d = x.shape[:3]
    product, value = (state.new_empty(b, cut.segments, d, 2) for _ in range(2))
    kernel.aggregate[(cut.programs,)](
        *(a, x, resets, product, value, t, d, cut.segments, cut.steps, *_steps(a), *_steps(x)),
        REVERSE=reverse,
        CONSTANT=a.dim() == 2,
        RESETS=resets.numel() > 0,
        T=cut.T,
        D=cut.D,
        STAGES=cut.stages,
        WIDE=_wide(state),
    )
    before, last = torch.empty_like(product), torch.empty_like(state)
    _run(product, value, state, product.new_zeros(0, dtype=torch.bool), before, last)
    return torch.cat([state[:, None], before[:, :-1]], 1)


@torch.library.custom_op("hippodrome::linear_scan_complex_triton", mutates_args=())
def _forward(a: Tensor, x: Tensor, state: Tensor, resets: Tensor) -> tuple[Tensor, Tensor]:
    if not x.numel():
        return x.new_empty(x.shape), state.clone()
    h, last = x.new_empty(x.shape), state.new_empty(state.shape)
    with _triton.on(x):
        _run(a, x, state, resets.contiguous(), h, last)
    return h, last


@_forward.register_fake
def _(a: Tensor, x: Tensor, state: Tensor, resets: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), state.new_empty(state.shape)


@torch.library.custom_op("hippodrome::linear_scan_complex_triton_backward", mutates_args=())
def _backward(
    grad_h: Tensor, grad_last: Tensor, a: Tensor, x: Tensor, state: Tensor, resets: Tensor, h: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    from hippodrome.ops.linear_scan_complex import _triton_kernel as kernel

    grad_x = x.new_empty(x.shape)
    if not x.numel():
        return a.new_zeros(a.shape), grad_x, grad_last.to(state.dtype, copy=True)
    constant = a.dim() == 2
    grad_state = state.new_empty(state.shape)
    with _triton.on(x):
        cut, grad_h, a = plan(x, 2), pairs(grad_h), pairs(a)
        state, resets, h = state.contiguous(), resets.contiguous(), h.contiguous()
        starts = segment_starts(cut, a, grad_h, grad_last.to(state.dtype), resets, True)
        if constant:
            grad_a = state.new_empty(x.shape[0] * cut.segments, x.shape[2], 2, dtype=torch.float64)
        else:
            grad_a = a.new_empty(a.shape)
        kernel.backward[(cut.programs,)](
            *(a, state, starts, resets, h, grad_h, grad_a, grad_x, grad_state),
            *(*x.shape[1:3], cut.segments, cut.steps, *_steps(a), *_steps(grad_h)),
            CONSTANT=constant,
            RESETS=resets.numel() > 0,
            T=cut.T,
            D=cut.D,
            STAGES=cut.stages,
            WIDE=_wide(state),
        )
        return grad_a.sum(0).to(a.dtype) if constant else grad_a, grad_x, grad_state


@_backward.register_fake
def _(grad_h, grad_last, a, x, state, resets, h):  # type: ignore[no-untyped-def]
    return a.new_empty(a.shape), x.new_empty(x.shape), state.new_empty(state.shape)


def _setup(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[0])


def _gradient(ctx: Any, grad_h: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad_h, grad_last, *ctx.saved_tensors), None)


def _form(a: Tensor, x: Tensor, state: Tensor, resets: Tensor) -> tuple[Tensor, Tensor]:
    return torch_.linear_scan_complex(a, x, state, resets if resets.numel() else None)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=2, inputs=4)


def linear_scan_complex(
    a: Tensor, x: Tensor, initial_state: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States and last state; arguments as at the door."""
    dtype = x.dtype
    wide = _triton.wide(torch.promote_types(a.dtype, dtype))
    if wide == torch.float64:
        a, x = a.to(wide), x.to(wide)
    shape = (x.shape[0], x.shape[2], 2)
    state = x.new_zeros(shape, dtype=wide) if initial_state is None else initial_state.to(wide)
    marks = resets if resets is not None else x.new_zeros(0, dtype=torch.bool)
    h, last = _forward(a, x, state, marks)
    return h.to(dtype), last.to(_triton.wide(dtype))
