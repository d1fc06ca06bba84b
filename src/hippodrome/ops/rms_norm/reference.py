"""Definition of the root-mean-square norm, run of channels by run, in float64: the oracle of the others."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def rms_norm(x: Tensor, weight: Tensor, z: Tensor | None, eps: float, groups: int) -> Tensor:
    """The norm; arguments as at the door."""
    v = x.double()
    if z is not None:
        v = v * z.double() * torch.sigmoid(z.double())
    pieces = []
    for run, scale in zip(v.chunk(groups, -1), weight.double().chunk(groups), strict=True):
        pieces.append(scale * run / torch.sqrt((run**2).mean(-1, keepdim=True) + eps))
    return torch.cat(pieces, -1).to(x.dtype)
