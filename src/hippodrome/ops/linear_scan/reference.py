"""Definition of the linear scan, one step at a time in float64: the oracle every other backend is held to."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def linear_scan(
    a: Tensor, x: Tensor, initial_state: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States and last state; arguments as at the door."""
    dtype = x.dtype
    a, x = a.double(), x.double()
    h = torch.zeros_like(x[:, 0]) if initial_state is None else initial_state.double()
    states = []
    for t in range(x.shape[1]):
        if resets is not None:
            h = torch.where(resets[:, t, None], 0.0, h)
        h = (a if a.dim() == 1 else a[:, t]) * h + x[:, t]
        states.append(h)
    return torch.stack(states, 1).to(dtype), h.to(torch.promote_types(dtype, torch.float32))
