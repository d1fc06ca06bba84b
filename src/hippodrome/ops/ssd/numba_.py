"""SSD on the CPU: custom ops around the fused Numba kernels."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.ops._custom import register_second_order
from hippodrome.ops._threads import run_tiles
from hippodrome.ops.ssd import torch_

NAME = "numba"
SCRATCH = 64 * 2**20
"""Bytes of boundary states that the backward holds at once: it takes as many heads as fit (one at least)."""


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take float32 and float64 on the CPU; half precision is widened at the door."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    return None


def _flat(x: Tensor) -> tuple[Any, tuple[int, int, int]]:
    """The memory under a (b, t, h, .) tensor as one flat array, and its strides; copied if rows have gaps."""
    if x.stride(-1) != 1:
        x = x.contiguous()
    reach = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    strides = (x.stride(0), x.stride(1), x.stride(2))
    return x.detach().as_strided((reach,), (1,)).numpy(), strides


def _abreast(heads: int, most: int) -> int:
    """How many heads a tile takes side by side: up to 8, with a tile left for every thread."""
    return max(1, min(8, most, heads // torch.get_num_threads()))


def _row(x: Tensor) -> Any:
    return x.detach().contiguous().view(-1).numpy()


@torch.library.custom_op("hippodrome::ssd", mutates_args=())
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
    from hippodrome.ops.ssd import _numba_kernel as kernel

    b, t, h, p = x.shape
    g, n = B.shape[2:]
    y = torch.empty(x.shape, dtype=x.dtype)
    last = torch.empty(state.shape, dtype=x.dtype)
    if not y.numel() or not n:
        return y.zero_(), last.copy_(state)
    q = min(chunk, t)
    chunks = -(-t // q)
    width = kernel.padded(q, kernel.lanes(x.element_size()))
    scores = torch.empty(b * chunks * g * q * width, dtype=x.dtype).numpy()
    sizes = (t, h, p, g, n, q)
    flat_b, flat_c = _flat(B), _flat(C)
    block = _abreast(b * h, h)
    run_tiles(kernel.group_scores, b * chunks * g, *flat_b, *flat_c, sizes, scores)
    run_tiles(
        kernel.forward,
        b * -(-h // block),
        block,
        *_flat(x),
        _row(dt),
        _row(A),
        *flat_b,
        *flat_c,
        _row(D),
        _row(state),
        _row(resets),
        scores,
        sizes,
        _row(y),
        _row(last),
    )
    return y, last


@_forward.register_fake
def _(x, dt, A, B, C, D, state, resets, chunk):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape), x.new_empty(state.shape)


@torch.library.custom_op("hippodrome::ssd_backward", mutates_args=())
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
    from hippodrome.ops.ssd import _numba_kernel as kernel

    b, t, h, p = x.shape
    g, n_given = B.shape[2:]
    if not x.numel() or not n_given:
        zeros = (torch.zeros(z.shape, dtype=x.dtype) for z in (x, dt, A, B, C, D))
        return (*zeros, grad_last.clone())  # type: ignore[return-value]
    # Rows of the state are whole registers here.
    n = kernel.padded(n_given, kernel.lanes(x.element_size()))
    if n > n_given:
        B, C, state, grad_last = (F.pad(z, (0, n - n_given)) for z in (B, C, state, grad_last))
    q = min(chunk, t)
    chunks = -(-t // q)
    width = kernel.padded(q, kernel.lanes(x.element_size()))
    sizes = (t, h, p, g, n, q)
    flat_x, flat_b, flat_c, flat_y = _flat(x), _flat(B), _flat(C), _flat(grad_y)
    shared = (*flat_x, _row(dt), _row(A), *flat_b, *flat_c)
    marks = _row(resets)
    grad_x = torch.empty(x.shape, dtype=x.dtype)
    grad_dt = torch.empty(dt.shape, dtype=x.dtype)
    grad_b = torch.zeros(B.shape, dtype=x.dtype)
    grad_c = torch.zeros(C.shape, dtype=x.dtype)
    grad_state = torch.empty(state.shape, dtype=x.dtype)
    grad_scores = torch.zeros(b * chunks * g * q * width, dtype=x.dtype)
    grad_rate = torch.empty(b * chunks, h, dtype=x.dtype)
    grad_skip = torch.empty(b * chunks, h, dtype=x.dtype)
    held = min(b * h, max(1, SCRATCH // (2 * chunks * p * n * x.element_size())))
    block = _abreast(held, held)
    begins = torch.empty(held * chunks * p * n, dtype=x.dtype).numpy()
    ends = torch.empty(held * chunks * p * n, dtype=x.dtype).numpy()
    for pair in range(0, b * h, held):
        pairs = min(held, b * h - pair)
        run_tiles(
            kernel.boundary_states,
            -(-pairs // block),
            pair,
            pairs,
            block,
            *shared,
            _row(state),
            marks,
            sizes,
            *flat_y,
            _row(grad_last),
            begins,
            ends,
            _row(grad_state),
        )
        run_tiles(
            kernel.backward,
            b * chunks * g,
            pair,
            pairs,
            *shared,
            _row(D),
            marks,
            sizes,
            *flat_y,
            begins,
            ends,
            _row(grad_scores),
            _row(grad_x),
            _row(grad_dt),
            _row(grad_rate),
            _row(grad_skip),
            _row(grad_b),
            _row(grad_c),
        )
    # Summed by numpy, in one order whatever the number of threads.
    grad_a = torch.from_numpy(grad_rate.numpy().sum(0))
    grad_d = torch.from_numpy(grad_skip.numpy().sum(0)) if D.numel() else torch.zeros_like(D)
    if n > n_given:
        grad_b, grad_c, grad_state = (z[..., :n_given].contiguous() for z in (grad_b, grad_c, grad_state))
    return grad_x, grad_dt, grad_a, grad_b, grad_c, grad_d, grad_state


@_backward.register_fake
def _(grad_y, grad_last, x, dt, A, B, C, D, state, resets, chunk):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(z.shape) for z in (x, dt, A, B, C, D, state))


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
    b, _, h, p = x.shape
    dtype = x.dtype
    wide = torch.promote_types(dtype, torch.float32)
    for z in (dt, A, B, C):
        wide = torch.promote_types(wide, z.dtype)
    state = x.new_zeros(b, h, p, B.shape[-1]) if initial_state is None else initial_state
    skip = x.new_zeros(0) if D is None else D
    marks = x.new_zeros((0, 0), dtype=torch.bool) if resets is None else resets
    floats = (z.to(wide) for z in (x, dt, A, B, C, skip, state))
    y, last = _forward(*floats, marks, chunk)
    return y.to(dtype), last
