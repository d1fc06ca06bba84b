"""Definition of the dense linear scan, one step at a time in float64: the oracle of every other backend."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def dense_scan(
    A: Tensor, v: Tensor, initial_state: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States and last state; arguments as at the door."""
    dtype = v.dtype
    A, v = A.double(), v.double()
    h = v.new_zeros(v[:, 0].shape) if initial_state is None else initial_state.double()
    letters = {2: "ij", 3: "ij", 4: "bij"}[A.dim()]
    states = []
    for t in range(v.shape[1]):
        if resets is not None:
            h = torch.where(resets[:, t].view(-1, *[1] * (h.dim() - 1)), 0.0, h)
        a = A if A.dim() == 2 else A[t] if A.dim() == 3 else A[:, t]
        h = torch.einsum(f"{letters},b...j->b...i", a, h) + v[:, t]
        states.append(h)
    return torch.stack(states, 1).to(dtype), h.to(torch.promote_types(dtype, torch.float32))
