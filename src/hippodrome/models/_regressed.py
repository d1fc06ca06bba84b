"""What regressions share: statistics that fit what they scale, and errors on scaled values as metrics."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.models.base import exact_sum
from hippodrome.shapes import Mean


def check_widths(
    channels: int,
    targets: int,
    location: list[float] | None,
    scale: list[float] | None,
    target_location: list[float] | None,
    target_scale: list[float] | None,
) -> None:
    """Raises ValueError for statistics that do not hold a number for each channel or target."""
    for name, values, width in (
        ("location", location, channels),
        ("scale", scale, channels),
        ("target_location", target_location, targets),
        ("target_scale", target_scale, targets),
    ):
        if values is not None and len(values) != width:
            raise ValueError(
                f"{name} holds one number for each of {width}; got {len(values)}. Take the train "
                f"statistics of the same values."
            )


def positive(values: list[float]) -> Float[Tensor, "c"]:
    """The numbers, with one in the place of a zero."""
    spread = torch.tensor(values)
    return torch.where(spread > 0, spread, 1.0)


def mean_square(error: Float[Tensor, "*any"], seen: Bool[Tensor, "*any"]) -> Float[Tensor, ""]:
    """The mean of the squares of errors that are zero where nothing was seen."""
    return error.square().sum() / seen.sum().clamp(min=1)


def measured(error: Float[Tensor, "*any"], seen: Bool[Tensor, "*any"]) -> Mapping[str, Mean]:
    """ "mse" and "mae" of such errors; "r2", one minus the first."""
    count = int(seen.sum())
    squared = exact_sum(error.square())
    return {
        "mse": Mean(squared, count),
        "mae": Mean(exact_sum(error.abs()), count),
        "r2": Mean(count - squared, count),
    }
