"""A mixture of experts as a layer of its own, for patterns that place it where they want it."""

from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.mlp import Activation
from hippodrome.layers.moe import MoE
from hippodrome.mixers._pointwise import Pointwise


class RoutedExperts(Pointwise):
    """y_t = sum over the ``active`` most probable experts e of p_e MLP_e(x_t), p = softmax(router(x_t)).

    Fedus, Zoph, Shazeer 2021, "Switch transformers", arXiv 2101.03961, equations 1 and 2; as in Jamba (Lieber
    et al. 2024, arXiv 2403.19887) the chosen probabilities are used as they are. No token is dropped. As a
    layer by itself it has one residual branch: ``mamba+moe`` is a state space, then a mixture. The load
    balancing loss and what else there is to know stand at ``layers.moe.MoE``.

    Args:
        d_model: channels in and out.
        d_hidden: channels between, of each expert; None takes 8/3 d_model, or 4 d_model without gates.
        experts: how many there are.
        active: how many each token goes through.
        activation: of the gates, or between the maps where there are none; None takes "silu" with gates and
            "relu2" without.
        gated: whether experts have a gate.
        renormalize: whether the chosen probabilities are divided by their sum.
        balance: weight of the load balancing loss in training; 0 for none.
        scores: what a router's values become: "softmax", or "sigmoid" with a correction for the choice alone.
        groups: equal runs of experts, of which a token chooses some first.
        active_groups: how many of those; None for all.
        factor: multiplies the weights of the chosen, last.
        shared: channels inside a perceptron beside the experts, of their kind; None for none.
        latent: channels that experts read and write; None for d_model.
        bias: whether the shared perceptron and the maps around the experts have biases.

    Raises:
        ValueError: more experts active than there are or fewer than one, groups that do not fit, a negative
            weight, an unknown word.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int | None = None,
        experts: int = 8,
        active: int = 2,
        activation: Activation | None = None,
        gated: bool = True,
        renormalize: bool = False,
        balance: float = 0.01,
        scores: str = "softmax",
        groups: int = 1,
        active_groups: int | None = None,
        factor: float = 1.0,
        shared: int | None = None,
        latent: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        function: Activation = activation or ("silu" if gated else "relu2")
        self.moe = MoE(
            d_model,
            d_hidden,
            experts,
            active,
            function,
            gated,
            renormalize,
            balance,
            scores,
            groups,
            active_groups,
            factor,
            shared,
            latent,
            bias,
        )

    @property
    def out_proj(self) -> nn.Module:
        """The maps that write into the residual stream."""
        writer = self.moe.fc2 if self.moe.leave is None else self.moe.leave
        return writer if self.moe.shared is None else nn.ModuleList([writer, self.moe.shared.fc2])

    def tokens(self, x: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """Each token on its own, by the experts that it chooses."""
        return self.moe(x)

    @classmethod
    def example(cls) -> "RoutedExperts":
        """A small instance."""
        return cls(8, 8, experts=4)
