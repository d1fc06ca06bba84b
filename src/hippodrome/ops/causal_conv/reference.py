"""Definition of the causal convolution, one token at a time in float64: the oracle of every other backend."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    resets: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor]:
    """Outputs and the last raw inputs; arguments as at the door."""
    dtype, wide = x.dtype, torch.promote_types(x.dtype, torch.float32)
    b, t, d = x.shape
    x, weight = x.double(), weight.double()
    past = x.new_zeros(b, weight.shape[1] - 1, d) if initial_state is None else initial_state.double()
    outputs = []
    for i in range(t):
        if resets is not None:
            past = torch.where(resets[:, i, None, None], 0.0, past)
        window = torch.cat([past, x[:, i : i + 1]], 1)
        y = (window * weight.T).sum(1)
        y = y if bias is None else y + bias.double()
        outputs.append(y * torch.sigmoid(y) if silu else y)
        past = window[:, 1:]
    return torch.stack(outputs, 1).to(dtype), past.to(wide)
