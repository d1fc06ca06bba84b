"""Causal convolution in plain PyTorch: a shifted product a tap, any device, differentiable at will."""

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
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
    w = weight.shape[1]
    x, weight = x.to(wide), weight.to(wide)
    past = x.new_zeros(b, w - 1, d) if initial_state is None else initial_state.to(wide)
    full = torch.cat([past, x], 1)
    y = x * weight[:, -1]
    if resets is None:
        for k in range(w - 1):
            y = y + full[:, k : k + t] * weight[:, k]
        last = full[:, t:].clone()
    else:
        # since[i] counts the tokens since the last reset: a tap `lag` tokens back is seen when lag <= since.
        index = torch.arange(t, device=x.device)
        latest = torch.where(resets, index, -w).cummax(1).values
        since = index - latest
        for k in range(w - 1):
            seen = (since >= w - 1 - k)[..., None]
            y = y + torch.where(seen, full[:, k : k + t], 0.0) * weight[:, k]
        lag = torch.arange(w - 2, -1, -1, device=x.device)
        last = torch.where((lag <= since[:, -1:])[..., None], full[:, t:], 0.0)
    if bias is not None:
        y = y + bias.to(wide)
    return (F.silu(y) if silu else y).to(dtype), last
