"""Definition of the cross-entropy and its gradient, one row at a time in float64: the oracle of the rest."""

import torch
from torch import Tensor

NAME = "reference"
IGNORED = -100
"""The target of a row that counts for nothing: its loss and its gradient are zero."""


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def cross_entropy_(logits: Tensor, targets: Tensor, rate: Tensor | None) -> Tensor:
    """Losses; the dense logits become the gradient, where there is a rate. Arguments as at the door."""
    losses = torch.zeros(len(logits), dtype=torch.float64, device=logits.device)
    for row, target in enumerate(targets.tolist()):
        z = logits[row].double()
        p = torch.softmax(z, 0)
        if target != IGNORED:
            losses[row] = z.logsumexp(0) - z[target]
            p[target] -= 1
        else:
            p = torch.zeros_like(p)
        if rate is not None:
            logits[row] = (rate.double() * p).to(logits.dtype)
    return losses.to(torch.promote_types(logits.dtype, torch.float32))
