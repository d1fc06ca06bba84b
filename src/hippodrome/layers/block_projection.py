"""A linear map in blocks: each run of channels through a matrix of its own, a block-diagonal matrix."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class BlockProjection(nn.Module):
    """y_h = x_h W_h + b_h for each of ``blocks`` equal runs of channels h.

    De et al. 2024, arXiv 2402.19427, section 2.4: the gates of RG-LRU are block-diagonal in the published
    models. Matrices are (blocks, in, out), as in their checkpoints; each starts as that of
    ``torch.nn.Linear`` does.

    Args:
        blocks: how many runs there are.
        d_in: channels in of each.
        d_out: channels out of each.

    Raises:
        ValueError: there is no block.
    """

    def __init__(self, blocks: int, d_in: int, d_out: int) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"A map in blocks has one block at least; got {blocks}.")
        bound = d_in**-0.5
        self.weight = nn.Parameter(torch.empty(blocks, d_in, d_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(blocks, d_out).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b h o"]:
        """Channels (..., blocks * d_in) to (..., blocks, d_out)."""
        blocks, d_in, d_out = self.weight.shape
        rows = x.reshape(-1, blocks, d_in).transpose(0, 1)
        y = torch.baddbmm(self.bias[:, None], rows, self.weight)
        return y.transpose(0, 1).reshape(*x.shape[:-1], blocks, d_out)
