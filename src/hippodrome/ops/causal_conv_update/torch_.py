"""One token of the causal convolution in PyTorch: any device."""

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def causal_conv_update(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, silu: bool) -> Tensor:
    """The output; arguments as at the door."""
    inputs = torch.cat([state, x[:, None].to(state.dtype)], 1)
    y = (inputs * weight.T.to(state.dtype)).sum(1)
    if bias is not None:
        y = y + bias.to(state.dtype)
    state.copy_(inputs[:, 1:])
    return (F.silu(y) if silu else y).to(x.dtype)
