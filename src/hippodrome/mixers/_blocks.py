"""Runs along time in pieces: in blocks, whose tensors fit into memory, or one token after the other."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

State = TypeVar("State", bound=tuple[Any, ...])

BLOCK = 1 << 22
"""Numbers that the tensors of a block may hold at once: in float32 16 MiB, twice that of complex ones."""


def steps_within(numbers: int) -> int:
    """How many steps a block has that holds so many numbers for each of them; at least one."""
    return max(1, BLOCK // max(1, numbers))


def run_in_blocks(
    block: Callable[..., tuple[Tensor, Tensor]], length: int, state: Tensor, *sequences: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Outputs (b, t, ...) and last state of ``block(state, *parts) -> (y, state)`` over parts of axis 1.

    A part has at most ``length`` steps; a sequence that is None is handed on as None. What a block holds is
    freed after it: with gradients it is computed again when its turn comes backwards.
    """
    t = next(x.shape[1] for x in sequences if x is not None)
    if length >= t:
        return block(state, *sequences)
    outputs = []
    for start in range(0, t, length):
        parts = [None if x is None else x[:, start : start + length] for x in sequences]
        if torch.is_grad_enabled():
            y, state = checkpoint(block, state, *parts, use_reentrant=False)
        else:
            y, state = block(state, *parts)
        outputs.append(y)
    return torch.cat(outputs, 1), state


def fill_in_blocks(
    block: Callable[..., tuple[Tensor, State]], length: int, state: State, *sequences: Tensor | None
) -> tuple[Tensor, State]:
    """``run_in_blocks`` without gradients, for a state of any kind: outputs are written where they stay.

    Joining them at the end would hold all of them twice.
    """
    t = next(x.shape[1] for x in sequences if x is not None)
    if length >= t:
        return block(state, *sequences)
    outputs = None
    for start in range(0, t, length):
        parts = [None if x is None else x[:, start : start + length] for x in sequences]
        y, state = block(state, *parts)
        if outputs is None:
            outputs = y.new_empty(y.shape[0], t, *y.shape[2:])
        outputs[:, start : start + length] = y
    assert outputs is not None
    return outputs, state


def run_one_by_one(
    advance: Callable[..., tuple[Tensor, Tensor]],
    state: Tensor,
    x: Tensor,
    resets: Tensor | None,
    dt: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs (b, t, ...) and last state of ``advance(state, x_t, dt_t) -> (y_t, state)``, token after token.

    Tokens come in the dtype of the state, which is zero after a reset.
    """
    outputs = []
    for i in range(x.shape[1]):
        if resets is not None:
            state = torch.where(resets[:, i].view(-1, *[1] * (state.dim() - 1)), 0.0, state)
        y_t, state = advance(state, x[:, i].to(state.dtype), None if dt is None else dt[:, i])
        outputs.append(y_t)
    return torch.stack(outputs, 1), state
