"""Definition of the companion kernel: one power after the other, in float64."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def companion_kernel(a: Tensor, b: Tensor, c: Tensor, length: int) -> Tensor:
    """Arguments as at the door."""
    column, x, rows = a.double(), b.double(), c.double()
    values = []
    for _ in range(length):
        values.append((rows * x[:, None]).sum(-1))
        down = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], -1)
        x = down + column * x[:, -1:]
    return torch.stack(values, -1).to(c.dtype)
