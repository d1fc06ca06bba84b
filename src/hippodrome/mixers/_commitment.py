"""Vector quantization in training: its commitment term as a gradient, and a codebook that is held still."""

from typing import Any

import torch
from torch import Tensor


class Committed(torch.autograd.Function):
    """The keys as they are; backwards, also the gradient of ``weight`` times their mean squared distance."""

    @staticmethod
    def forward(ctx: Any, k: Tensor, codes: Tensor, weight: float) -> Tensor:
        """The keys."""
        ctx.save_for_backward(k, codes)
        ctx.weight = weight
        return k.view_as(k)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """What comes, and the term's own."""
        k, codes = ctx.saved_tensors
        return grad + 2 * ctx.weight / k.numel() * (k - codes), None, None


@torch.library.custom_op("hippodrome::snapshot", mutates_args=())
def snapshot(x: Tensor) -> Tensor:
    """A copy of what is overwritten before the backward pass needs it.

    An operator of its own: a compiler saves what such a one returns, but would make a clone again in the
    backward pass, from what has changed since. It passes no gradient.
    """
    return x.clone()


@snapshot.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)
