"""Stochastic depth: in training a whole residual branch is left out of some rows."""

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """0 with probability ``rate`` for each row, else x / (1 - rate); x itself outside training.

    Huang, Sun, Liu, Sedra, Weinberger 2016, "Deep networks with stochastic depth", arXiv 1603.09382, by rows.

    Args:
        rate: from 0 on, below 1.

    Raises:
        ValueError: a rate outside that.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"A branch is dropped at a rate from 0 on, below 1; got {rate}.")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Each row (the first axis) kept or dropped as a whole."""
        if not self.training or not self.rate:
            return x
        kept = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.rate
        return torch.where(kept, x / (1 - self.rate), 0.0)
