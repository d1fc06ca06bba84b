"""Linear maps of one shape, stacked: one for each expert of a mixture."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hippodrome.ops.grouped_linear import grouped_linear


class StackedProjection(nn.Module):
    """y_r = W_g x_r: each group of rows through a matrix of its own, without biases.

    Every matrix starts as that of ``torch.nn.Linear`` does.

    Args:
        count: g, how many matrices.
        d_in: channels in.
        d_out: channels out.

    Raises:
        ValueError: there is no matrix.
    """

    def __init__(self, count: int, d_in: int, d_out: int) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"A stack of maps holds one at least; got {count}.")
        self.weight = nn.Parameter(torch.empty(count, d_out, d_in).uniform_(-(d_in**-0.5), d_in**-0.5))

    def forward(self, x: Float[Tensor, "n i"], counts: Int[Tensor, "g"]) -> Float[Tensor, "n o"]:
        """Rows (n, i), those of one group side by side, ``counts`` of them in each."""
        return grouped_linear(x, self.weight, counts)
