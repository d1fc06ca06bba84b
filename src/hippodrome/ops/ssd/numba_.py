"""SSD on the CPU: custom ops around the fused Numba kernels."""

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from hippodrome.ops._arrays import dense, flat
from hippodrome.ops._custom import register_second_order
from hippodrome.ops._threads import share_tiles
from hippodrome.ops.ssd import torch_

NAME = "numba"
SEGMENT = 16
"""As in the kernels: chunks that the backward takes at once."""


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take float32, float64 and bfloat16 on the CPU; float16 is widened at the door."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    return None


def _marks(x: Tensor, B: Tensor, chunk: int) -> Any:
    """Room for the states between segments (an int, maybe symbolic), n by whole vectors of p."""
    b, t, h, p = x.shape
    n = B.shape[3]
    return (t - 1) // (SEGMENT * chunk) * b * h * n * ((p + 15) // 16 * 16)


def _scores(B: Tensor, C: Tensor, dt: Tensor, sizes: tuple[int, ...]) -> Any:
    """C_i . B_j within each chunk and group, which all heads of a group share."""
    from hippodrome.ops.ssd import _numba_kernel as kernel

    t, _, _, g, _, q = sizes
    tiles = B.shape[0] * -(-t // q) * g
    scores = dense(dt.new_empty(tiles * q * kernel.padded(q)))
    share_tiles(kernel.group_scores, tiles, *flat(B), *flat(C), dense(dt), sizes, scores)
    return scores


def _run_forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    state: Tensor,
    resets: Tensor,
    chunk: int,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, last state and the states between segments; x, B and C of any strides."""
    from hippodrome.ops.ssd import _numba_kernel as kernel

    b, t, h, p = x.shape
    g, n = B.shape[2:]
    y = torch.empty(x.shape, dtype=x.dtype)
    last = torch.empty((b, h, p, n), dtype=dt.dtype)
    if not y.numel() or not n:
        return y.zero_(), last.zero_() if not state.numel() else last.copy_(state), dt.new_empty(0)
    marks = dt.new_empty(_marks(x, B, chunk) if keep else 0)
    sizes = (t, h, p, g, n, min(chunk, t))
    steps = dense(dt.transpose(1, 2))
    # Heads abreast share rows of B and C; threads take several turns, so that a late one holds up none.
    block = max(1, min(4, b * h // (4 * torch.get_num_threads())))
    share_tiles(
        kernel.forward,
        b * g * -(-(h // g) // block),
        block,
        *flat(x),
        steps,
        dense(A),
        *flat(B),
        *flat(C),
        dense(D),
        dense(state),
        dense(resets),
        _scores(B, C, dt, sizes),
        sizes,
        dense(y),
        dense(last),
        dense(marks),
    )
    return y, last, marks


def _run_backward(
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
    marks: Tensor,
    grad_x: Tensor,
    grad_b: Tensor,
    grad_c: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Write the gradients of x, B and C where they are to lie; return those of dt, A, D and the state."""
    from hippodrome.ops.ssd import _numba_kernel as kernel

    b, t, h, p = x.shape
    g, n = B.shape[2:]
    if not x.numel() or not n:
        for z in (grad_x, grad_b, grad_c):
            z.zero_()
        rest = (torch.zeros_like(z) for z in (dt, A, D))
        return *rest, grad_last.clone() if state.numel() else torch.zeros_like(state)  # type: ignore[return-value]
    q = min(chunk, t)
    chunks, width = -(-t // q), kernel.padded(q)
    sizes = (t, h, p, g, n, q)
    flat_b, flat_c = flat(B), flat(C)
    steps, grad_dt = dense(dt.transpose(1, 2)), dt.new_empty(b, h, t)
    grad_rate, grad_skip = dt.new_empty(b * chunks, h), dt.new_empty(b * chunks, h)
    grad_state = dt.new_empty(b, h, p, n)
    # What heads share is added up in blocks of them: the more blocks, the more there is to add, the fewer,
    # the fewer threads have work. Sums must not depend on the number of threads, so neither do the blocks.
    block = max(1, min(8, b * h // 8, h // g))
    blocks = -(-(h // g) // block)
    span = min(chunks, SEGMENT)
    shared = dense(dt.new_empty(b * g * blocks * span * (2 * n + q) * width))
    pulled = dense(dt.new_empty(b * h * kernel.padded(n) * kernel.padded(p)))
    scores = _scores(B, C, dt, sizes)
    for chunk_from in range((chunks - 1) // SEGMENT * SEGMENT, -1, -SEGMENT):
        chunk_to = min(chunk_from + SEGMENT, chunks)
        share_tiles(
            kernel.backward,
            b * g * blocks,
            block,
            chunk_from,
            chunk_to,
            *flat(x),
            steps,
            dense(A),
            *flat_b,
            *flat_c,
            dense(D),
            dense(state),
            dense(marks),
            dense(resets),
            scores,
            sizes,
            *flat(grad_y),
            dense(grad_last),
            pulled,
            shared,
            *flat(grad_x),
            dense(grad_dt),
            dense(grad_rate),
            dense(grad_skip),
            dense(grad_state),
        )
        share_tiles(
            kernel.finish,
            b * (chunk_to - chunk_from) * g,
            block,
            chunk_from,
            chunk_to,
            dense(dt),
            *flat_b,
            *flat_c,
            sizes,
            shared,
            *flat(grad_b),
            *flat(grad_c),
        )
    # Summed by numpy, in one order whatever the number of threads.
    grad_a = torch.from_numpy(grad_rate.numpy().sum(0))
    grad_d = torch.from_numpy(grad_skip.numpy().sum(0)) if D.numel() else torch.zeros_like(D)
    grad_dt = grad_dt.transpose(1, 2).contiguous()
    return grad_dt, grad_a, grad_d, grad_state if state.numel() else torch.zeros_like(state)


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
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _run_forward(x, dt, A, B, C, D, state, resets, chunk, keep)


@_forward.register_fake
def _(x, dt, A, B, C, D, state, resets, chunk, keep):  # type: ignore[no-untyped-def]
    b, _, h, p = x.shape
    n = B.shape[3]
    return x.new_empty(x.shape), dt.new_empty(b, h, p, n), dt.new_empty(_marks(x, B, chunk) if keep else 0)


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
    marks: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_x, grad_b, grad_c = (torch.empty(z.shape, dtype=z.dtype) for z in (x, B, C))
    into = (grad_x, grad_b, grad_c)
    others = _run_backward(grad_y, grad_last, x, dt, A, B, C, D, state, resets, chunk, marks, *into)
    grad_dt, grad_a, grad_d, grad_state = others
    return grad_x, grad_dt, grad_a, grad_b, grad_c, grad_d, grad_state


@_backward.register_fake
def _(grad_y, grad_last, x, dt, A, B, C, D, state, resets, chunk, marks):  # type: ignore[no-untyped-def]
    return tuple(z.new_empty(z.shape) for z in (x, dt, A, B, C, D, state))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.chunk, _ = inputs
    ctx.save_for_backward(*tensors, output[2])


def _gradient(ctx: Any, grad_y: Tensor, grad_last: Tensor, grad_marks: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, marks = ctx.saved_tensors
    return (*_backward(grad_y, grad_last, *tensors, ctx.chunk, marks), None, None, None)


def _form(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor, resets: Tensor
) -> tuple[Tensor, Tensor]:
    skip, first, marks = (z if z.numel() else None for z in (D, state, resets))
    return torch_.ssd(x, dt, A, B, C, skip, first, marks, torch_.CHUNK)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=2, inputs=8)


def _cut(mixed: Tensor, dt: Tensor, groups: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """x, B and C as views of the tensor in which they lie side by side."""
    heads, inner = dt.shape[2], mixed.shape[-1] - 2 * groups * n
    x, B, C = mixed.split([inner, groups * n, groups * n], -1)
    return (
        x.unflatten(-1, (heads, inner // heads)),
        B.unflatten(-1, (groups, n)),
        C.unflatten(-1, (groups, n)),
    )


@torch.library.custom_op("hippodrome::ssd_packed", mutates_args=())
def _packed(
    mixed: Tensor,
    dt: Tensor,
    A: Tensor,
    D: Tensor,
    state: Tensor,
    resets: Tensor,
    groups: int,
    n: int,
    chunk: int,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    x, B, C = _cut(mixed, dt, groups, n)
    return _run_forward(x, dt, A, B, C, D, state, resets, chunk, keep)


@_packed.register_fake
def _(mixed, dt, A, D, state, resets, groups, n, chunk, keep):  # type: ignore[no-untyped-def]
    x, B, _ = _cut(mixed, dt, groups, n)
    b, _, h, p = x.shape
    return x.new_empty(x.shape), dt.new_empty(b, h, p, n), dt.new_empty(_marks(x, B, chunk) if keep else 0)


@torch.library.custom_op("hippodrome::ssd_packed_backward", mutates_args=())
def _packed_backward(
    grad_y: Tensor,
    grad_last: Tensor,
    mixed: Tensor,
    dt: Tensor,
    A: Tensor,
    D: Tensor,
    state: Tensor,
    resets: Tensor,
    groups: int,
    n: int,
    chunk: int,
    marks: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_mixed = torch.empty(mixed.shape, dtype=mixed.dtype)
    x, B, C = _cut(mixed, dt, groups, n)
    into = _cut(grad_mixed, dt, groups, n)
    rest = _run_backward(grad_y, grad_last, x, dt, A, B, C, D, state, resets, chunk, marks, *into)
    return grad_mixed, *rest


@_packed_backward.register_fake
def _(grad_y, grad_last, mixed, dt, A, D, state, resets, groups, n, chunk, marks):  # type: ignore[no-untyped-def]
    return tuple(z.new_empty(z.shape) for z in (mixed, dt, A, D, state))


def _packed_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:6], output[2])
    ctx.numbers = inputs[6:9]


def _packed_gradient(
    ctx: Any, grad_y: Tensor, grad_last: Tensor, grad_marks: Tensor
) -> tuple[Tensor | None, ...]:
    *tensors, marks = ctx.saved_tensors
    grads = _packed_backward(grad_y, grad_last, *tensors, *ctx.numbers, marks)
    return (*grads, None, None, None, None, None)


def _packed_form(
    mixed: Tensor, dt: Tensor, A: Tensor, D: Tensor, state: Tensor, resets: Tensor, groups: int, n: int
) -> tuple[Tensor, Tensor]:
    x, B, C = _cut(mixed, dt, groups, n)
    return _form(x, dt, A, B, C, D, state, resets)


_packed.register_autograd(_packed_gradient, setup_context=_packed_setup)
register_second_order(_packed_backward, _packed_form, outputs=2, inputs=6, options=2)


def _prepared(
    side_by_side: tuple[Tensor, ...], others: tuple[Tensor | None, ...], resets: Tensor | None
) -> tuple[tuple[Tensor, ...], list[Tensor], Tensor, bool]:
    """Dtypes made one, what is absent empty: activations, (dt, A, D, state), resets, whether to keep states.

    bfloat16 is read and written where it lies; everything that sets time scales is float32 or wider.
    """
    x = side_by_side[0]
    floats = (z for z in (*side_by_side, *others) if z is not None)
    wide = reduce(torch.promote_types, (z.dtype for z in floats), torch.float32)
    stored = x.dtype if x.dtype == torch.bfloat16 and wide == torch.float32 else wide
    activations = tuple(z.to(stored) for z in side_by_side)
    rest = [x.new_zeros(0, dtype=wide) if z is None else z.to(wide) for z in others]
    marks = x.new_zeros((0, 0), dtype=torch.bool) if resets is None else resets
    keep = torch.is_grad_enabled() and any(z.requires_grad for z in (*activations, *rest))
    return activations, rest, marks, keep


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
    (u, B, C), (dt, A, D, state), marks, keep = _prepared((x, B, C), (dt, A, D, initial_state), resets)
    y, last, _ = _forward(u, dt, A, B, C, D, state, marks, chunk, keep)
    return y.to(x.dtype), last


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
    (mixed,), (dt, A, D, state), marks, keep = _prepared((xBC,), (dt, A, D, initial_state), resets)
    y, last, _ = _packed(mixed, dt, A, D, state, marks, groups, n, chunk, keep)
    return y.to(xBC.dtype), last
