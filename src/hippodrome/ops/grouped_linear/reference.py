"""Definition of the grouped linear map, one row at a time in float64."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def grouped_linear(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """The outputs; arguments as at the door."""
    owners = torch.repeat_interleave(torch.arange(weight.shape[0], device=x.device), counts)
    rows = [weight[g].double() @ row.double() for g, row in zip(owners.tolist(), x, strict=True)]
    return torch.stack(rows).to(x.dtype) if rows else x.new_zeros(0, weight.shape[1])
