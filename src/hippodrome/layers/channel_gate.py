"""Squeeze and excitation: each channel is weighed by what the mean over all points says."""

from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.mlp import Activation, activation_function
from hippodrome.layers.projection import Projection


class ChannelGate(nn.Module):
    """x * sigmoid(W2 f(W1 mean_t norm(x))) (Hu, Shen, Sun 2017, "Squeeze-and-excitation networks", arXiv
    1709.01507, equations 2 to 4), with a layer norm in front of the mean where one is wanted.

    Args:
        channels: in and out.
        hidden: between the two maps.
        activation: f.
        normed: whether a layer norm, of the copy that is averaged, comes first.

    Raises:
        ValueError: an unknown activation.
    """

    def __init__(
        self, channels: int, hidden: int, activation: Activation = "gelu", normed: bool = False
    ) -> None:
        super().__init__()
        self.function = activation_function(activation)
        self.norm = nn.LayerNorm(channels) if normed else nn.Identity()
        self.reduce = Projection(channels, hidden)
        self.select = Projection(hidden, channels)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """The weighed points of each row."""
        mean = self.norm(x).mean(1, keepdim=True)
        return x * self.select(self.function(self.reduce(mean))).sigmoid()
