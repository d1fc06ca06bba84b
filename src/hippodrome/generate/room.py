"""Room in states that grow: the same state with slots for more tokens, or with none beyond those it holds.

Attention keeps every key and value. Its state either has slots for all tokens to come, which are then
written in place, or grows with each token. Between the two forms a state moves here; what does not grow
stays as it is.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from hippodrome.generate.decoder import grows, owned
from hippodrome.generate.rows import size
from hippodrome.models.base import Model


def with_room(model: Model, state: tuple, read: int, max_length: int | None) -> tuple:
    """The state after ``read`` tokens, with room for ``max_length`` in all; None for one that grows.

    It has memory of its own where it was moved.

    Raises:
        ValueError: room for fewer tokens than were read, or the state of another model.
    """
    if max_length is not None and max_length < read:
        raise ValueError(f"a state that has read {read} tokens needs room for them; got {max_length}.")
    if not grows(model):
        return state
    rows = size(state)
    like = model.init_state(rows, max_length)
    # One that grows has as many slots as there were tokens, and tells them by its type.
    slots = model.init_state(rows, max(read, 1)) if max_length is None else like
    return owned(_fitted(state, like, slots, "state"))


def _fitted(state: Any, like: Any, slots: Any, path: str) -> Any:
    """A state with the types of one template and the sizes of the other."""
    if isinstance(slots, Tensor):
        return _resized(state, slots, path)
    names = getattr(like, "_fields", range(len(like)))
    parts = [
        _fitted(old, one, other, f"{path}.{name}")
        for name, old, one, other in zip(names, state, like, slots, strict=True)
    ]
    return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)


def _resized(old: Tensor, like: Tensor, path: str) -> Tensor:
    """A tensor of a state with another number of slots, which lie along axis 1; those beyond are zeros."""
    if old.shape == like.shape:
        return old
    if old.dim() != like.dim() or old.dim() < 2 or old.shape[2:] != like.shape[2:]:
        raise ValueError(
            f"the state is of another model: {path} has shape {tuple(old.shape)}, and {tuple(like.shape)} "
            "was expected. Take it to the model that it came from."
        )
    more = like.shape[1] - old.shape[1]
    return F.pad(old, (0, 0) * (old.dim() - 2) + (0, more)) if more > 0 else old[:, : like.shape[1]]
