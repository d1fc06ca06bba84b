"""Quantiles of a forecast or a filled value: offsets in order, and the loss that trains them."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def ordered(steps: Float[Tensor, "*where q"]) -> Float[Tensor, "*where q"]:
    """Increasing offsets from free numbers: the middle as it is, the others by positive steps."""
    middle = steps.shape[-1] // 2
    centre = steps[..., middle : middle + 1]
    above = functional.softplus(steps[..., middle + 1 :]).cumsum(-1)
    below = functional.softplus(steps[..., :middle].flip(-1)).cumsum(-1).flip(-1)
    return torch.cat([centre - below, centre, centre + above], -1)


def pinball(
    quantiles: Float[Tensor, "*where q"], target: Float[Tensor, "*where"], levels: Float[Tensor, "q"]
) -> Float[Tensor, "*where q"]:
    """max(level * error, (level - 1) * error) for each quantile (Koenker and Bassett 1978)."""
    error = target[..., None] - quantiles
    return torch.maximum(levels * error, (levels - 1) * error)


def check_quantiles(quantiles: tuple[float, ...]) -> None:
    """Raise ValueError unless these are increasing levels inside (0, 1); none at all is fine."""
    if sorted(set(quantiles)) != list(quantiles) or not all(0 < level < 1 for level in quantiles):
        raise ValueError(
            f"quantiles are increasing levels inside (0, 1); got {quantiles}. Sort them, drop 0 and 1."
        )
