"""The linear map of the house: ``torch.nn.Linear`` that reads its weight at memory speed for a few rows."""

from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.ops.linear import linear


class Projection(nn.Linear):
    """x W^T + bias: parameters, names, state dict and first values of ``torch.nn.Linear``, which it is.

    Without gradients, on a CPU and for a few rows (one token) the product is that of ``ops.linear``; all
    other calls are PyTorch's. Whatever wraps or replaces a ``torch.nn.Linear`` does so here.
    """

    def forward(self, x: Float[Tensor, "*rows i"]) -> Float[Tensor, "*rows o"]:
        """Each row on its own."""
        return linear(x, self.weight, self.bias)
