"""Diagonal time-invariant system on the CPU: custom ops around the fused Numba kernels."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hippodrome.ops._arrays import dense
from hippodrome.ops._custom import register_second_order
from hippodrome.ops._threads import share_tiles
from hippodrome.ops.diagonal_lti import torch_

NAME = "numba"

WORTHWHILE = 4096
"""Tokens in a tile that are worth tables of their own."""


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take float32, float64 and bfloat16 on the CPU; float16 is widened at the door."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    return None


def _chunk(log_a: Tensor) -> int:
    """Steps of a chunk: work inside a chunk grows with it, work on the states at its ends shrinks."""
    return 64 if log_a.shape[1] >= 16 else 32


class _Plan(NamedTuple):
    """How one call is cut: (b, t, d, n), steps of a chunk, blocks of channels, ranges of rows in each."""

    shape: tuple[int, int, int, int]
    length: int
    blocks: int
    splits: int


def _plan(u: Tensor, log_a: Tensor) -> _Plan:
    """One tile holds a block's rows and shares its tables; more only where threads would stand idle."""
    from hippodrome.ops.diagonal_lti import _numba_kernel as kernel

    b, t, d = u.shape
    blocks = -(-d // (kernel.BYTES // log_a.element_size()))
    threads = torch.get_num_threads()
    wanted = 1 if blocks >= 4 * threads or threads == 1 else -(-4 * threads // blocks)
    splits = max(1, min(b, wanted, b * t // WORTHWHILE))
    return _Plan((b, t, d, log_a.shape[1]), _chunk(log_a), blocks, splits)


def _kept(u: Tensor, log_a: Tensor) -> Any:
    """Room for the states that enter all chunks (an int, maybe symbolic), whatever the machine's vectors."""
    b, t, d = u.shape
    n = log_a.shape[1]
    return b * -(-d // 16) * -(-t // _chunk(log_a)) * 16 * 4 * -(-n // 2)


def _numpy(x: Tensor) -> Any:
    return x.detach().contiguous().numpy()


@torch.library.custom_op("hippodrome::diagonal_lti", mutates_args=())
def _forward(
    u: Tensor, log_a: Tensor, w: Tensor, state: Tensor, resets: Tensor, skip: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    from hippodrome.ops.diagonal_lti import _numba_kernel as kernel

    y, last = torch.empty(u.shape, dtype=u.dtype), torch.empty(state.shape, dtype=log_a.dtype)
    shape, length, blocks, splits = _plan(u, log_a)
    kept = log_a.new_empty(_kept(u, log_a) if keep else 0)
    # Narrower vectors than the room is cut for leave some of it unused.
    used = blocks * shape[0] * -(-shape[1] // length) * kernel.padded(shape[3]) * kernel.BYTES
    kept[used // log_a.element_size() :] = 0
    share_tiles(
        kernel.forward,
        blocks * splits,
        splits,
        shape,
        length,
        dense(u),
        _numpy(log_a),
        _numpy(w),
        _numpy(skip),
        _numpy(state),
        _numpy(resets),
        dense(y),
        last.numpy(),
        kept.numpy(),
    )
    return y, last, kept


@_forward.register_fake
def _(u, log_a, w, state, resets, skip, keep):  # type: ignore[no-untyped-def]
    return u.new_empty(u.shape), log_a.new_empty(state.shape), log_a.new_empty(_kept(u, log_a) if keep else 0)


@torch.library.custom_op("hippodrome::diagonal_lti_backward", mutates_args=())
def _backward(
    grad_y: Tensor,
    grad_last: Tensor,
    u: Tensor,
    log_a: Tensor,
    w: Tensor,
    state: Tensor,
    resets: Tensor,
    skip: Tensor,
    kept: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from hippodrome.ops.diagonal_lti import _numba_kernel as kernel

    shape, length, blocks, splits = _plan(u, log_a)
    grad_u, grad_state = torch.empty(u.shape, dtype=u.dtype), torch.empty(state.shape, dtype=log_a.dtype)
    grad_log_a, grad_w = log_a.new_empty(log_a.shape), log_a.new_empty(w.shape)
    grad_skip = log_a.new_empty(skip.shape)
    columns = 2 * kernel.padded(shape[3]) + length + 1
    parts = log_a.new_empty(blocks * shape[0] * columns * kernel.BYTES // log_a.element_size()).numpy()
    numbers = [_numpy(log_a), _numpy(w)]
    share_tiles(
        kernel.backward,
        blocks * splits,
        splits,
        shape,
        length,
        dense(grad_y),
        _numpy(grad_last),
        dense(u),
        *numbers,
        _numpy(skip),
        _numpy(resets),
        _numpy(kept),
        dense(grad_u),
        grad_state.numpy(),
        parts,
    )
    share_tiles(
        kernel.finish,
        blocks,
        shape,
        length,
        *numbers,
        parts,
        grad_log_a.numpy(),
        grad_w.numpy(),
        grad_skip.numpy(),
    )
    return grad_u, grad_log_a, grad_w, grad_state, grad_skip


@_backward.register_fake
def _(grad_y, grad_last, u, log_a, w, state, resets, skip, kept):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in (u, log_a, w, state, skip))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:6], output[2])
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    u, log_a, w, state, resets, skip, kept = ctx.saved_tensors
    if grad_y is None:
        grad_y = torch.zeros_like(u)
    if grad_last is None:
        grad_last = torch.zeros_like(state)
    grads = _backward(grad_y, grad_last, u, log_a, w, state, resets, skip, kept)
    return (*grads[:4], None, grads[4], None)


def _form(
    u: Tensor, log_a: Tensor, w: Tensor, state: Tensor, resets: Tensor, skip: Tensor
) -> tuple[Tensor, Tensor]:
    return torch_.diagonal_lti(u, log_a, w, state, resets if resets.numel() else None, skip)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=2, inputs=6)


def diagonal_lti(
    u: Tensor,
    log_a: Tensor,
    w: Tensor,
    initial_state: Tensor | None,
    resets: Tensor | None,
    skip: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs and last state; arguments as at the door."""
    wide = torch.promote_types(u.dtype, torch.float32)
    # bfloat16 is read and written where it lies; all else is float32 or wider.
    x = u if u.dtype == torch.bfloat16 else u.to(wide)
    state = u.new_zeros(u.shape[0], *log_a.shape) if initial_state is None else initial_state
    marks = resets if resets is not None else u.new_zeros((1, 0), dtype=torch.bool)
    straight = u.new_zeros(u.shape[2]) if skip is None else skip
    numbers = [z.to(wide) for z in (log_a, w, state)]
    keep = torch.is_grad_enabled() and any(z.requires_grad for z in (x, *numbers, straight))
    y, last, _ = _forward(x, *numbers, marks, straight.to(wide), keep)
    return y.to(u.dtype), last
