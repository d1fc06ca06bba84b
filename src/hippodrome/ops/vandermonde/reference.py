"""Definition of the Vandermonde product: the powers one after the other, in float64."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def vandermonde(log_a: Tensor, c: Tensor, length: int) -> Tensor:
    """Arguments as at the door."""
    a = torch.exp(torch.complex(log_a[..., 0].double(), log_a[..., 1].double()))
    term = torch.complex(c[..., 0].double(), c[..., 1].double())
    values = []
    for _ in range(length):
        values.append(term.real.sum(-1))
        term = term * a
    return torch.stack(values, -1).to(c.dtype)
