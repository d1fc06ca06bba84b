"""What mixers share whose token is a frame, flattened: rows, columns, channels, the last innermost."""

import math
from collections.abc import Sequence

from torch import Tensor


def channels_of(owner: str, d_model: int, sizes: Sequence[int]) -> int:
    """How many channels each point of a frame has.

    Raises:
        ValueError: not two sizes of 1 or more, or frames of so many points do not divide ``d_model``.
    """
    if len(sizes) != 2 or min(sizes) < 1:
        raise ValueError(
            f"{owner} takes sizes=[rows, columns] of the frame that a token is, each 1 or more; got "
            f"{list(sizes)}."
        )
    points = math.prod(sizes)
    if d_model < points or d_model % points:
        raise ValueError(
            f"A token of {owner} is a frame of {sizes[0]} x {sizes[1]} points flattened, so d_model is a "
            f"multiple of {points}; got d_model={d_model}. Take {max(1, round(d_model / points)) * points}."
        )
    return d_model // points


def check_taps(owner: str, kernel: int) -> None:
    """Raise ValueError where a number of taps has no middle."""
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(
            f"{owner} takes an odd number of taps along each axis, so that one is the point itself; got "
            f"kernel={kernel}. Take 3."
        )


def unflatten(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """(..., d_model) as frames (..., rows, columns, channels)."""
    return x.unflatten(-1, (*sizes, -1))
