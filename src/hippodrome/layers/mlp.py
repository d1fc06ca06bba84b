"""The gated multilayer perceptron that stands between mixers."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.projection import Projection


class GatedMLP(nn.Module):
    """fc2(y * silu(gate)) with [y | gate] = fc1(x) (Shazeer 2020, arXiv 2002.05202, equation 6, "SwiGLU").

    Args:
        d_model: channels in and out.
        d_hidden: channels between; None takes 8/3 d_model, rounded up to a multiple of 8, which costs as many
            parameters as an ungated perceptron of 4 d_model.
    """

    def __init__(self, d_model: int, d_hidden: int | None = None) -> None:
        super().__init__()
        if d_hidden is None:
            d_hidden = 8 * -(-d_model // 3)
        self.fc1 = Projection(d_model, 2 * d_hidden, bias=False)
        self.fc2 = Projection(d_hidden, d_model, bias=False)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Each token on its own."""
        y, gate = self.fc1(x).chunk(2, -1)
        return self.fc2(y * F.silu(gate))
