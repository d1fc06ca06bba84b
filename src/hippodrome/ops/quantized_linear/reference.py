"""Definition of the linear map of int8 weights, one output channel at a time in float64."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def quantized_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """The outputs; arguments as at the door."""
    wide = x.double()
    table = weight.double() * scale.double()[:, None]
    y = torch.stack([(wide * row).sum(-1) for row in table], -1)
    return (y if bias is None else y + bias.double()).to(x.dtype)
