"""Rows of different lengths through a backbone: what stands behind a row's end is read by nobody."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hippodrome.models.base import accepts_dt


def padded_features(
    backbone: Any,
    embed: Callable[[Tensor], Tensor],
    inputs: Float[Tensor, "b t c"] | Int[Tensor, "b t"],
    lengths: Int[Tensor, "b"],
    dt: Float[Tensor, "b t"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Bool[Tensor, "b t"]]:
    """The backbone's features of rows that end at their lengths, and which steps are within them.

    ``embed`` takes the inputs to the backbone's width. A backbone without continuous time is not told ``dt``.
    """
    places = torch.arange(inputs.shape[1], device=inputs.device)
    valid = places < lengths[:, None]
    inputs = torch.where(valid[..., None] if inputs.dim() == 3 else valid, inputs, 0)
    # What reads from the end must not begin in the padding: there a piece of its own begins.
    whole = backbone.causal or not backbone.accepts_resets
    features, _ = backbone(
        embed(inputs),
        resets=None if whole else places == lengths[:, None],
        dt=dt if dt is not None and accepts_dt(backbone) else None,
    )
    return features, valid
