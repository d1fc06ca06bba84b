"""Definition of the causal long convolution: the direct sum over lags, in float64."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def fft_conv(x: Tensor, kernel: Tensor) -> Tensor:
    """Arguments as at the door."""
    wide, taps = x.double(), kernel.double()
    y = torch.zeros_like(wide)
    for lag in range(min(x.shape[1], kernel.shape[1])):
        late = wide[:, : x.shape[1] - lag] * taps[:, lag]
        y = y + torch.cat([wide.new_zeros(x.shape[0], lag, x.shape[2]), late], 1)
    return y.to(x.dtype)
