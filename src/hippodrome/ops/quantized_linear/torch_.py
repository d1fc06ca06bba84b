"""The linear map of int8 weights in PyTorch: any device, any number of rows, differentiable at will."""

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def quantized_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """The outputs; arguments as at the door."""
    return F.linear(x, widened(weight, scale, x.dtype), bias)


def quantized_rows(ids: Tensor, weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of the table; arguments as at the door."""
    return widened(F.embedding(ids, weight), F.embedding(ids, scale[:, None])[..., 0], dtype)


def widened(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """s q, each number rounded once to ``dtype``."""
    wide = torch.promote_types(dtype, torch.float32)
    return (weight.to(wide) * scale.to(wide)[..., None]).to(dtype)
