"""A perceptron as a layer of its own, for patterns that place it where they want it."""

from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.mlp import Activation, FeedForward, GatedMLP
from hippodrome.mixers._pointwise import Pointwise


class PointwiseMLP(Pointwise):
    """y_t = fc2(v silu(gate)) with [v | gate] = fc1(x_t); without a gate y_t = fc2(f(fc1(x_t))).

    Shazeer 2020, "GLU variants improve transformer", arXiv 2002.05202, equation 6; ungated with
    f(x) = max(x, 0)^2 of So et al. 2021, arXiv 2109.08668, as in Mamba-2-Hybrid (Waleffe et al. 2024, arXiv
    2406.07887). As a layer by itself it has one residual branch: ``mamba2+mlp`` is a state space, then a
    perceptron.

    Args:
        d_model: channels in and out.
        d_hidden: channels between; None takes 8/3 d_model, or 4 d_model without a gate.
        activation: "silu", "gelu", "gelu_tanh", "relu" or "relu2", the squared one; None takes "silu" with a
            gate and "relu2" without.
        gated: whether one half of the channels gates the other.
        bias: whether the maps have biases.
        gate_scale: of the gate, before its function.

    Raises:
        ValueError: an unknown activation, or a scale for a gate that is none.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int | None = None,
        activation: Activation | None = None,
        gated: bool = True,
        bias: bool = False,
        gate_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not gated and gate_scale != 1.0:
            raise ValueError(f"gate_scale is for a gated perceptron; got {gate_scale} with gated=False.")
        self.d_model = d_model
        self.mlp = (
            GatedMLP(d_model, d_hidden, activation or "silu", bias, gate_scale)
            if gated
            else FeedForward(d_model, d_hidden, activation or "relu2", bias)
        )

    @property
    def out_proj(self) -> nn.Module:
        """The map that writes into the residual stream."""
        return self.mlp.fc2

    def tokens(self, x: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """Each token on its own."""
        return self.mlp(x)

    @classmethod
    def example(cls) -> "PointwiseMLP":
        """A small instance."""
        return cls(8)
