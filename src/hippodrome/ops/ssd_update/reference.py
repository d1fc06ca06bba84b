"""Definition of one token of SSD: the op's own, of a sequence of one, with its step size made in float64."""

import torch
from torch import Tensor

from hippodrome.ops.ssd.reference import ssd

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def ssd_update(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor,
    softplus: bool,
    low: float,
    high: float,
) -> Tensor:
    """The output; arguments as at the door."""
    sizes = dt.double() if dt_bias is None else dt.double() + dt_bias.double()
    if softplus:
        sizes = torch.logaddexp(sizes, torch.zeros_like(sizes))
    sizes = sizes.clamp(low, high)
    y, last = ssd(x[:, None], sizes[:, None], A, B[:, None], C[:, None], D, state, None, 1)
    state.copy_(last)
    return y[:, 0].to(x.dtype)
