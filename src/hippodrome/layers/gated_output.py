"""The output of a convolutional state space layer: GELU, then a gated linear unit."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.projection import Projection


class GatedOutput(nn.Module):
    """a * sigmoid(g) with [a | g] = W gelu(y) + bias (Dauphin et al. 2016, arXiv 1612.08083, equation 1).

    Args:
        d_model: channels in and out.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.linear = Projection(d_model, 2 * d_model)

    def forward(self, y: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """Each token on its own."""
        return F.glu(self.linear(F.gelu(y)), -1)
