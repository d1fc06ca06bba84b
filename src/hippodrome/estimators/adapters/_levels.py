"""Quantiles at levels that a model has not learned, read off those it has."""

from collections.abc import Sequence

import numpy as np
import torch


def at_levels(levels: Sequence[float], values: np.ndarray, wanted: Sequence[float]) -> np.ndarray:
    """Quantiles (..., m) at the levels ``wanted`` from increasing ones (..., q) at ``levels``.

    Linear over the quantiles of the normal distribution, beyond the outermost two levels too: exact where the
    forecast is normal.

    Raises:
        ValueError: fewer than two levels, through which no line can be drawn, or a level outside (0, 1).
    """
    if len(levels) < 2 or not all(0 < level < 1 for level in wanted):
        raise ValueError(
            f"a quantile's level lies inside (0, 1), and its value is read off two learned ones or more; got "
            f"the levels {list(wanted)} and a model of {list(levels)}. Learn two quantiles or more, and ask "
            f"inside (0, 1)."
        )
    have, asked = (
        torch.special.ndtri(torch.tensor(x, dtype=torch.float64)).numpy() for x in (levels, wanted)
    )
    left = np.clip(np.searchsorted(have, asked, side="right") - 1, 0, len(have) - 2)
    share = (asked - have[left]) / (have[left + 1] - have[left])
    return values[..., left] * (1 - share) + values[..., left + 1] * share
