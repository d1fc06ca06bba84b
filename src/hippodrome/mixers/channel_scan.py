"""Channel scan: the channels of each token as a sequence, read from both ends by a selective state space."""

from jaxtyping import Float
from torch import Tensor

from hippodrome.layers.projection import Projection
from hippodrome.mixers._pointwise import Pointwise
from hippodrome.mixers.base import ParameterGroup
from hippodrome.mixers.mamba import Mamba


class ChannelScan(Pointwise):
    """y = f(x~) + flip(r(flip x~)) along the channels of one token, f and r Mambas over ``width`` features.

    Behrouz, Santacatterina, Zabih 2024, "MambaMixer: efficient selective state space models with dual token
    and channel selection", arXiv 2403.19888, section 3.2, equations of the selective channel mixer. There the
    features of a channel are the tokens of the whole row, which fixes their number: that form is
    ``backbones.mamba_mixer``. Here a channel has one feature, its value in this token, lifted to ``width`` by
    a linear map and read back by another, and all tokens share all weights: so the layer works at any length
    and in any order of time, and has few parameters, as the vision model of the paper has ("CW-S6"), whose
    code is not public.

    Args:
        d_model: channels in and out: the length of the sequence.
        width: features that a channel's value is lifted to.
        d_state: size of the state of each inner feature.
        taps: of the convolution along the channels.
        expand: inner features as a multiple of ``width``.
    """

    def __init__(
        self, d_model: int, width: int = 4, d_state: int = 16, taps: int = 4, expand: int = 2
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.lift = Projection(1, width)
        self.ahead, self.back = (Mamba(width, d_state, taps, expand) for _ in range(2))
        self.out_proj = Projection(width, 1, bias=False)

    def tokens(self, x: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """Each token on its own."""
        features = self.lift(x.reshape(-1, self.d_model, 1))
        y = self.ahead(features)[0] + self.back(features.flip(1))[0].flip(1)
        return self.out_proj(y).view(x.shape)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of both Mambas."""
        return [*self.ahead.parameter_groups(), *self.back.parameter_groups()]

    @classmethod
    def example(cls) -> "ChannelScan":
        """A small instance."""
        return cls(6, width=2, d_state=2)
