"""The commitment term of vector quantization, as a gradient that joins whatever loss is minimised."""

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
