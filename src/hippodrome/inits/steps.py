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


def for_timescales(count: int, shortest: float, longest: float) -> Float64[Tensor, "count"]:
    """``count`` log-uniform step sizes whose timescales 1 / dt lie between shortest and longest, in steps.

    A system with the window 1 (LegT, FouT) then sees 1 / dt steps, and LegS remembers about as many. (Gu,
    Johnson, Timalsina, Rudra, Ré 2022, "How to train your HiPPO", arXiv 2206.12037.) The usual range of dt
    from 0.001 to 0.1 is that of 10 to 1000 steps; a longer dependency wants a longest that covers it.

    Raises:
        ValueError: not 0 < shortest <= longest.
    """
    if not 0 < shortest <= longest:
        raise ValueError(
            f"Timescales need 0 < shortest <= longest, in steps; got shortest={shortest}, longest={longest}."
        )
    return log_uniform(count, 1 / longest, 1 / shortest)


def inverse_softplus(y: Tensor) -> Tensor:
    """x with log(1 + exp(x)) = y, for y > 0, with no overflow for large y and no cancellation for small y."""
    return y + torch.log(-torch.expm1(-y))
