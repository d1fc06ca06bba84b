"""The linear map in PyTorch: any device, any number of rows, differentiable at will."""

import torch.nn.functional as F
from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The outputs; arguments as at the door."""
    return F.linear(x, weight, bias)
