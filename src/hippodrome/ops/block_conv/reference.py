"""Definition of the convolution with a state: the direct sum over lags, in float64."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def block_conv(
    x: Tensor,
    kernel: Tensor,
    initial_state: Tensor | None,
    back: Tensor | None,
    ahead: Tensor | None,
    block: int | None,
) -> Tensor:
    """Outputs; arguments as at the door. There are no blocks here."""
    b, t, d = x.shape
    past, later = kernel.shape[1] - 1, 0 if back is None else back.shape[1]
    before = x.new_zeros(b, past, d) if initial_state is None else initial_state
    after = x.new_zeros(b, later, d) if ahead is None else ahead
    whole = torch.cat([before.double(), x.double(), after.double()], 1)
    y = torch.zeros_like(x, dtype=torch.float64)
    for j in range(past + 1):
        y = y + kernel[:, j].double() * whole[:, past - j : past - j + t]
    for j in range(later):
        assert back is not None
        y = y + back[:, j].double() * whole[:, past + 1 + j : past + 1 + j + t]
    return y.to(x.dtype)
