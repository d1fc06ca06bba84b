"""A mixer that reads a sequence from both ends: two mixers, one of them over the reversed tokens."""

from typing import Any

from torch import Tensor, nn

from hippodrome.backbones._not_causal import NotCausal
from hippodrome.backbones._pieces import backwards, shifted
from hippodrome.layers.gated_output import GatedOutput
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.shapes import Resets, Sequence, TimeSteps


class Bidirectional(NotCausal):
    """y_t = f(x_0 .. x_t) + r(x_t .. x_{T-1}), or, with "offset", + r(x_{t+1} .. x_{T-1}).

    Schuster, Paliwal 1997, "Bidirectional recurrent neural networks", IEEE Transactions on Signal Processing.

    Two conventions are published for where the reversed branch begins. "offset": at the next token, as in the
    code of S4 (arXiv 2111.00396), so that y_t = sum_j k0_j u_{t-j} + sum_j k1_j u_{t+1+j}. "shared": at the
    token itself, as in the code of S5 (arXiv 2208.04933) and Mega. With ``resets`` the pieces of a packed row
    are read each on its own, from their own two ends. ``dt`` is the time since the token before; for the
    reversed branch that is the time to the token after, and at the last token of a piece its own.

    Args:
        ahead: the mixer of the tokens in order.
        back: the mixer of the reversed tokens, of the same width.
        convention: "offset" or "shared".
        gated: whether GELU and a gated linear unit follow the sum, for mixers that were made without theirs.

    Raises:
        ValueError: the widths differ, a mixer inside is not causal, or an unknown convention.
    """

    def __init__(
        self,
        ahead: Mixer,
        back: Mixer,
        convention: str = "offset",
        gated: bool = False,
    ) -> None:
        super().__init__()
        if ahead.d_model != back.d_model:
            raise ValueError(
                f"Both directions have one width; got {ahead.d_model} ahead and {back.d_model} back."
            )
        if not (ahead.causal and back.causal):
            raise ValueError("Each direction is a causal mixer; got one that reads both ways already.")
        if convention not in ("offset", "shared"):
            raise ValueError(f"The reversed branch is 'offset' or 'shared'; got {convention!r}.")
        self.d_model, self.point_channels = ahead.d_model, ahead.point_channels
        # Known by instance, as is whether modalities are told apart.
        self.accepts_modality = ahead.accepts_modality and back.accepts_modality  # type: ignore[misc]
        self.accepts_dt = ahead.accepts_dt and back.accepts_dt  # type: ignore[misc]  # known by instance
        self.convention = convention
        self.ahead, self.back = ahead, back
        self.output = GatedOutput(self.d_model) if gated else nn.Identity()

    def forward(
        self,
        x: Sequence,
        state: Any = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
        modality: Tensor | None = None,
    ) -> tuple[Sequence, tuple]:
        """The whole sequence; the state handed back is empty."""
        if state is not None:
            self.refuse()
        self.check_call(x, None, resets, dt)
        told, told_back = {}, {}
        if modality is not None and self.accepts_modality:
            told, told_back = {"modality": modality}, {"modality": modality.flip(1)}
        y, _ = self.ahead(x, resets=resets, dt=dt, **told)
        marks, dt = backwards(x, resets, dt)
        z = self.back(x.flip(1), resets=marks, dt=dt, **told_back)[0]
        z = (shifted(z, marks) if self.convention == "offset" else z).flip(1)
        return self.output(y + z), ()

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of both mixers."""
        return [*self.ahead.parameter_groups(), *self.back.parameter_groups()]

    @classmethod
    def example(cls) -> "Bidirectional":
        """A small instance."""
        return cls(MinGRU(8), MinGRU(8))
