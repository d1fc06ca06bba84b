"""How the window of a forecast is normalized, and how its quantiles are ordered, trained and measured."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from hippodrome.models.base import exact_sum
from hippodrome.shapes import Mean

EPS = 1e-5

Normalization = Literal["window", "level", "last", "none"]
"""By mean and deviation of the window, its mean, its last value, or not at all."""


def statistics(
    values: Float[Tensor, "b t c"], kind: Normalization
) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]:
    """What is taken off a window, and what it is divided by; zero and one where nothing was seen of it."""
    seen = ~values.isnan()
    known = torch.where(seen, values, 0.0)
    one = torch.ones_like(known[:, 0])
    if kind == "none":
        return torch.zeros_like(one), one
    if kind == "last":
        steps = torch.arange(1, values.shape[1] + 1, device=values.device)[:, None]
        latest = (seen * steps).amax(1)
        at = (latest - 1).clamp(min=0)[:, None]
        return known.gather(1, at)[:, 0], one
    count = seen.sum(1).clamp(min=1)
    mean = known.sum(1) / count
    if kind == "level":
        return mean, one
    variance = torch.where(seen, values - mean[:, None], 0.0).square().sum(1) / count
    return mean, torch.where(seen.any(1), (variance + EPS).sqrt(), one)


def ordered(steps: Float[Tensor, "*any q"]) -> Float[Tensor, "*any q"]:
    """Increasing offsets from free numbers: the middle as it is, the others by positive steps."""
    middle = steps.shape[-1] // 2
    centre = steps[..., middle : middle + 1]
    above = functional.softplus(steps[..., middle + 1 :]).cumsum(-1)
    below = functional.softplus(steps[..., :middle].flip(-1)).cumsum(-1).flip(-1)
    return torch.cat([centre - below, centre, centre + above], -1)


def pinball(
    forecast: Float[Tensor, "*any q"], target: Float[Tensor, "*any"], levels: Float[Tensor, "q"]
) -> Float[Tensor, "*any"]:
    """max(level * error, (level - 1) * error), a mean over the quantiles (Koenker and Bassett 1978)."""
    error = target[..., None] - forecast
    return torch.maximum(levels * error, (levels - 1) * error).mean(-1)


def measured(
    forecast: Float[Tensor, "*any outputs"],
    target: Float[Tensor, "*any"],
    seen: Bool[Tensor, "*any"],
    levels: Float[Tensor, "q"],
) -> Mapping[str, Mean]:
    """ "mse" and "mae" of the point; with quantiles "pinball", and "coverage" of the outermost ones."""
    count = int(seen.sum())
    error = (forecast[..., 0] - target)[seen]
    found = {
        "mse": Mean(exact_sum(error.square()), count),
        "mae": Mean(exact_sum(error.abs()), count),
    }
    if len(levels):
        inside = (target >= forecast[..., 1]) & (target <= forecast[..., -1])
        found["pinball"] = Mean(exact_sum(pinball(forecast[..., 1:], target, levels)[seen]), count)
        found["coverage"] = Mean(exact_sum(inside[seen]), count)
    return found


def on_scale(
    raw: Float[Tensor, "b horizon c outputs"],
    future: Float[Tensor, "b horizon c"],
    location: Float[Tensor, "c"],
    scale: Float[Tensor, "c"],
) -> tuple[Float[Tensor, "b horizon c outputs"], Float[Tensor, "b horizon c"], Bool[Tensor, "b horizon c"]]:
    """Forecast and future on the scale of the train data, and which of the future was seen."""
    wide = raw.to(torch.promote_types(raw.dtype, torch.float32))
    target = (future - location) / scale
    seen = ~target.isnan()
    return (wide - location[:, None]) / scale[:, None], torch.where(seen, target, 0.0), seen


def paces(dt: Float[Tensor, "b t"], first: int, stride: int, rows: int) -> Float[Tensor, "br patches"]:
    """The time step of each token of each row: the mean over the steps that are new in its patch.

    ``first`` counts those of the first token of a stream; 0 where it goes on.
    """
    more = (dt.shape[1] - first) // stride  # none where a single patch is the whole look-back
    found = dt[:, first : first + more * stride].unflatten(1, (more, stride)).mean(-1)
    if first:
        found = torch.cat([dt[:, :first].mean(1, keepdim=True), found], 1)
    return found.repeat_interleave(rows, 0)


def latest(before: Tensor, new: Tensor, dim: int) -> Tensor:
    """As many of the last entries along a dimension as ``before`` holds, after ``new`` ones came to them."""
    count, came = before.shape[dim], new.shape[dim]
    if came < count:
        new, came = torch.cat([before, new], dim), count + came
    return new.narrow(dim, came - count, count)
