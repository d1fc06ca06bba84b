"""The linear map of the house: ``torch.nn.Linear`` by the fastest product that there is for its rows."""

from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.ops.linear import linear


class Projection(nn.Linear):
    """x W^T + bias: parameters, names, state dict and first values of ``torch.nn.Linear``, which it is.

    The product is that of ``ops.linear``. Whatever wraps or replaces a ``torch.nn.Linear`` does so here.
    """

    def forward(self, x: Float[Tensor, "*rows i"]) -> Float[Tensor, "*rows o"]:
        """Each row on its own."""
        return linear(x, self.weight, self.bias)


def like(layer: nn.Module) -> Tensor:
    """A tensor of a layer's dtype on its device: its weight, unless it would have to form that first."""
    held = layer._buffers.get("like")
    weight: Tensor = layer.weight if held is None else held  # type: ignore[assignment]
    return weight
