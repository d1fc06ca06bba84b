"""Rows of states: taken out, put into others, laid side by side. A fork of a row is taking it twice.

A state is a nested tuple of batch-first tensors. States of the same model differ in the number of rows, and,
where attention keeps keys in it, in the number of slots (axis 1): the slots beyond its tokens are empty, so a
row fits into more slots, and the empty ones are zeros.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.backbones import _rows
from hippodrome.generate.decoder import tensors


def take(state: Any, rows: Sequence[int] | Tensor) -> Any:
    """The state of the rows with these numbers, in memory of its own. A number may come twice.

    Raises:
        ValueError: a row that the state does not have.
    """
    index = torch.as_tensor(rows, dtype=torch.int64).cpu()
    _check(state, index)
    return _rows.take(state, index)


def put_(state: Any, rows: Sequence[int] | Tensor, other: Any) -> None:
    """Writes the rows of another state of the same model into the rows of this one that have these numbers.

    Raises:
        ValueError: another number of rows, a row that the state does not have, or a state that does not fit:
            of another model, or with more slots than there is room for.
    """
    index = torch.as_tensor(rows, dtype=torch.int64).cpu()
    _check(state, index)
    for old, new in _pairs(state, other):
        _fits(old, new, len(index))
        where = index.to(old.device)
        if old.shape[1:] == new.shape[1:]:
            old[where] = new.to(old.dtype)
        else:
            more = old.shape[1] - new.shape[1]
            old[where] = F.pad(new.to(old.dtype), (0, 0) * (new.dim() - 2) + (0, more))


def stack(states: Sequence[Any]) -> Any:
    """States as one, their rows one after the other, with the slots of the one that has most.

    Raises:
        ValueError: no states.
    """
    if not states:
        raise ValueError("states are laid side by side where there is one at least; got none.")
    count = sum(size(state) for state in states)
    return _rows.join(list(states), torch.arange(count))


def narrow(state: Any, count: int, first: int = 0) -> Any:
    """So many rows from the first on, in the same memory: what is written there is written in both."""
    if isinstance(state, Tensor):
        return state.narrow(0, first, count)
    return _like(state, [narrow(part, count, first) for part in state])


def widen(state: Any, rows: int, like: Any = None) -> Any:
    """The same rows with room for so many, and at least the slots of ``like``: a new state, empty beyond."""
    if isinstance(state, Tensor):
        shape = list(state.shape)
        shape[0] = rows
        if like is not None and len(shape) > 1:
            shape[1] = max(shape[1], like.shape[1])
        wider = state.new_zeros(shape)
        wider[(slice(len(state)), *(slice(n) for n in state.shape[1:2]))] = state
        return wider
    others = [None] * len(state) if like is None else like
    return _like(state, [widen(part, rows, other) for part, other in zip(state, others, strict=True)])


def cut(state: Any, like: Any) -> Any:
    """The state with as many slots as ``like`` has, in memory of its own: the slots beyond must be empty."""
    if isinstance(state, Tensor):
        kept = state[:, : like.shape[1]] if state.dim() > 1 else state
        return kept.clone(memory_format=torch.contiguous_format)
    return _like(state, [cut(part, other) for part, other in zip(state, like, strict=True)])


def has_room(state: Any, other: Any) -> bool:
    """Whether the other state has no more slots than this one, anywhere."""
    pairs = zip(tensors(state), tensors(other), strict=True)
    return all(two.dim() < 2 or two.shape[1] <= one.shape[1] for one, two in pairs)


def size(state: Any) -> int:
    """How many rows a state has; 0 of a model that keeps none."""
    return next((len(tensor) for tensor in tensors(state)), 0)


def bytes_of(state: Any) -> int:
    """The memory that a state takes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors(state))


def _like(state: Any, parts: list[Any]) -> Any:
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def _pairs(state: Any, other: Any) -> list[tuple[Tensor, Tensor]]:
    if isinstance(state, Tensor) and isinstance(other, Tensor):
        return [(state, other)]
    if isinstance(state, Tensor) or isinstance(other, Tensor) or len(state) != len(other):
        raise ValueError("the rows are of another model: their states are nested otherwise.")
    return [pair for one, two in zip(state, other, strict=True) for pair in _pairs(one, two)]


def _fits(old: Tensor, new: Tensor, count: int) -> None:
    if new.dim() != old.dim() or new.shape[2:] != old.shape[2:]:
        raise ValueError(
            f"the rows are of another model: a state of shape {tuple(new.shape)} does not fit into "
            f"{tuple(old.shape)}."
        )
    if len(new) != count:
        raise ValueError(f"each row that is put has a number; got {len(new)} rows and {count} numbers.")
    if new.dim() > 1 and new.shape[1] > old.shape[1]:
        raise ValueError(
            f"the rows have {new.shape[1]} slots and there is room for {old.shape[1]}: make the state with a "
            "larger init_state(batch, max_length)."
        )


def _check(state: Any, index: Tensor) -> None:
    first = next(tensors(state), None)
    if first is not None and len(index) and not -1 < int(index.min()) <= int(index.max()) < len(first):
        raise ValueError(f"rows are numbered from 0 to {len(first) - 1}; got {index.tolist()}.")
