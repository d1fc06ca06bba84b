"""States of a backbone, nested tuples of batch-first tensors, handled row by row."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def select(rows: Tensor, new: Any, old: Any) -> Any:
    """The state ``new`` in the marked rows (b,) and ``old`` in the others.

    A cache that grew by the new tokens has more slots than the old one; in the other rows they stay empty.
    """
    if not isinstance(new, Tensor):
        parts = [select(rows, one, other) for one, other in zip(new, old, strict=True)]
        return type(new)(*parts) if hasattr(new, "_fields") else tuple(parts)
    if new.dim() > 1 and new.shape[1] > old.shape[1]:
        old = F.pad(old, (0, 0) * (old.dim() - 2) + (0, new.shape[1] - old.shape[1]))
    return torch.where(rows.view(-1, *[1] * (new.dim() - 1)), new, old)


def take(state: Any, rows: Tensor) -> Any:
    """The state of the rows with these numbers (r,)."""
    if isinstance(state, Tensor):
        return state[rows]
    parts = [take(part, rows) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def join(states: list[Any], order: Tensor) -> Any:
    """States of groups of rows as one, its rows in the order that their numbers (b,) say."""
    if isinstance(states[0], Tensor):
        most = max(part.shape[1] if part.dim() > 1 else 0 for part in states)
        even = [
            F.pad(part, (0, 0) * (part.dim() - 2) + (0, most - part.shape[1])) if part.dim() > 1 else part
            for part in states
        ]
        return torch.cat(even)[order]
    parts = [join([state[i] for state in states], order) for i in range(len(states[0]))]
    return type(states[0])(*parts) if hasattr(states[0], "_fields") else tuple(parts)


def overwrite(state: Any, after: Any) -> None:
    """Write one state into the tensors of another, which its caller owns.

    Raises:
        ValueError: a cache inside grew.
    """
    for old, new in zip(state, after, strict=True):
        if isinstance(old, Tensor):
            if old.shape != new.shape:
                raise ValueError(
                    "A cache that grows cannot be written in place; make the state with "
                    "init_state(batch, max_length), or use step."
                )
            old.copy_(new)
        else:
            overwrite(old, new)
