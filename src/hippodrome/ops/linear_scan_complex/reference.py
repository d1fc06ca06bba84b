"""Definition of the complex linear scan, one step at a time in float64: the oracle of every other backend."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def _product(a: Tensor, h: Tensor) -> Tensor:
    real = a[..., 0] * h[..., 0] - a[..., 1] * h[..., 1]
    imaginary = a[..., 0] * h[..., 1] + a[..., 1] * h[..., 0]
    return torch.stack([real, imaginary], -1)


def linear_scan_complex(
    a: Tensor, x: Tensor, initial_state: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States and last state; arguments as at the door."""
    dtype = x.dtype
    a, x = a.double(), x.double()
    h = x.new_zeros(x[:, 0].shape) if initial_state is None else initial_state.double()
    states = []
    for t in range(x.shape[1]):
        if resets is not None:
            h = torch.where(resets[:, t, None, None], 0.0, h)
        h = _product(a if a.dim() == 2 else a[:, t], h) + x[:, t]
        states.append(h)
    return torch.stack(states, 1).to(dtype), h.to(torch.promote_types(dtype, torch.float32))
