"""Where step sizes start."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor


def log_uniform(count: int, low: float, high: float) -> Float64[Tensor, "count"]:
    """``count`` step sizes whose logarithms are uniform between those of low and high.

    Raises:
        ValueError: not 0 < low <= high.
    """
    if not 0 < low <= high:
        raise ValueError(f"Step sizes need 0 < low <= high; got low={low}, high={high}.")
    span = math.log(high) - math.log(low)
    return torch.exp(math.log(low) + span * torch.rand(count, dtype=torch.float64))


def inverse_softplus(y: Tensor) -> Tensor:
    """x with log(1 + exp(x)) = y, for y > 0, with no overflow for large y and no cancellation for small y."""
    return y + torch.log(-torch.expm1(-y))
