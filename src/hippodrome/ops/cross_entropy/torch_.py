"""Cross-entropy and its gradient in plain PyTorch, on any device; half precision is widened meanwhile."""

import torch
from torch import Tensor

from hippodrome.ops.cross_entropy.reference import IGNORED

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def cross_entropy_(logits: Tensor, targets: Tensor, rate: Tensor | None) -> Tensor:
    """Losses; the dense logits become the gradient, where there is a rate. Arguments as at the door."""
    valid = targets != IGNORED
    chosen = torch.where(valid, targets, 0)[:, None]
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    top = wide.amax(1, keepdim=True)
    # The peak first, and apart from the sum's logarithm: together they would lose the digits of either.
    low = wide - top if rate is None and wide is logits else wide.sub_(top)
    size = low.exp().sum(1, keepdim=True).log()
    losses = torch.where(valid, (size - low.gather(1, chosen))[:, 0], 0.0)
    if rate is not None:
        share = low.sub_(size).exp_()
        share.scatter_add_(1, chosen, -torch.ones_like(size))
        share.mul_(torch.where(valid, rate.to(share.dtype), 0.0)[:, None])
        if share is not logits:
            logits.copy_(share)
    return losses
