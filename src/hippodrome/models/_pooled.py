"""The mean of a row's features, so far and of all: what is answered at each step and at the end."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hippodrome.ops.linear_scan import linear_scan


class PooledState(NamedTuple):
    """The backbone's state, and the sum and number of the features since the last reset."""

    backbone: tuple
    total: Float[Tensor, "b d"]
    steps: Float[Tensor, "b 1"]


def nothing_pooled(backbone: tuple, batch: int, d_model: int, weight: Tensor) -> PooledState:
    """Before the first step; on the device of a weight, in its precision or float32 where that is lower."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    empty = torch.zeros(batch, d_model + 1, dtype=wide, device=weight.device)
    return PooledState(backbone, empty[:, :-1], empty[:, -1:])


def running_mean(
    features: Float[Tensor, "b t d"], before: PooledState, inner: tuple, resets: Tensor | None = None
) -> tuple[Float[Tensor, "b t d"], PooledState]:
    """The mean since the last reset at each step, and the state with the backbone's own, ``inner``."""
    wide = features.to(before.total.dtype)
    counted = torch.cat([wide, torch.ones_like(wide[..., :1])], -1)
    start = torch.cat([before.total, before.steps], -1)
    sums, last = linear_scan(torch.ones_like(counted), counted, start, resets)
    mean = (sums[..., :-1] / sums[..., -1:]).to(features.dtype)
    return mean, PooledState(inner, last[:, :-1], last[:, -1:])


def mean_and_last(
    features: Float[Tensor, "rows t d"], valid: Bool[Tensor, "rows t"], lengths: Int[Tensor, "rows"]
) -> tuple[Float[Tensor, "rows d"], Float[Tensor, "rows d"]]:
    """Of whole rows that end at their lengths: the mean over their steps, and the feature of the last; zeros
    of a row that is padding alone."""
    last = features[torch.arange(len(lengths), device=lengths.device), lengths - 1]
    last = torch.where(lengths[:, None] > 0, last, 0.0)
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    total = torch.where(valid[..., None], wide, 0.0).sum(1)
    return (total / lengths[:, None].clamp(min=1)).to(features.dtype), last
