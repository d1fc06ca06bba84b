"""BiMamba: two Mambas, one of them over the reversed tokens, which may share their projections."""

from typing import Any

from torch import Tensor, nn

from hippodrome.backbones._not_causal import NotCausal
from hippodrome.backbones._pieces import backwards
from hippodrome.mixers.base import ParameterGroup, check_word
from hippodrome.mixers.mamba import Mamba
from hippodrome.shapes import Resets, Sequence, TimeSteps


class BiMamba(NotCausal):
    """y = mamba_fwd(x) + flip(mamba_rev(flip x)), or their mean, or their product in each channel.

    Schiff, Kao, Gokaslan, Dao, Gu, Kuleshov 2024, "Caduceus: bi-directional equivariant long-range DNA
    sequence modeling", arXiv 2403.03234. With ``tied`` both directions have the same maps in and out (the
    same parameters, whose gradients add up), and their convolutions, step sizes, A and D remain their own:
    BiMamba-S of LC-PLM, and BiMamba as Caduceus trains it. These maps are then applied once and not twice.
    ``tied`` with "mean" is the mixer of Vim (Zhu et al. 2024, "Vision Mamba", arXiv 2401.09417), whose gate
    stands in both scans. Parameters carry the names of the authors' checkpoints, which hold tied ones once
    or twice.

    With ``resets`` the pieces of a packed row are read each on its own, from their own two ends. ``dt`` is
    the time since the token before; for the reversed direction that is the time to the token after, and at
    the last token of a piece its own.

    Args:
        d_model: channels in and out.
        tied: whether both directions share their maps in and out.
        combine: "add", "mean" or "multiply".
        d_state: size of each channel's state, as in ``mamba``.
        taps: of the short convolutions.
        expand: channels of each recurrence as a multiple of d_model.
        dt_rank: rank of the map to the step sizes; None takes d_model / 16, rounded up.
        dt_min: smallest step size at the start.
        dt_max: largest step size at the start.
        dt_floor: bound below the first step sizes.
        d_inner: channels of each recurrence, where they are not expand * d_model.
        norms: over step sizes, B and C, as in ``mamba``: "none", "learned" or "weightless".
        norm_eps: added to their mean squares.
        proj_bias: whether the maps in and out have biases.
        conv_bias: whether the short convolutions have one.
        select_B: whether B is chosen by the token.
        select_C: whether C is.
        groups: of neighbouring channels with a B and a C of their own.
        A_init: where A starts, as in ``mamba``.

    Raises:
        ValueError: ``combine`` is none of the three, or as in ``mamba``.
    """

    accepts_dt = True
    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        tied: bool = True,
        combine: str = "add",
        d_state: int = 16,
        taps: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_floor: float = 1e-4,
        d_inner: int | None = None,
        norms: str = "none",
        norm_eps: float = 1e-6,
        proj_bias: bool = False,
        conv_bias: bool = True,
        select_B: bool = True,
        select_C: bool = True,
        groups: int = 1,
        A_init: str = "s4d-real",
    ) -> None:
        super().__init__()
        check_word("BiMamba", "way to combine", combine, ("add", "mean", "multiply"))
        self.d_model, self.tied, self.combine = d_model, tied, combine
        sizes = (d_model, d_state, taps, expand, dt_rank, dt_min, dt_max, dt_floor, d_inner)
        forms = (norms, norm_eps, proj_bias, conv_bias, select_B, select_C, groups, A_init)
        self.mamba_fwd, self.mamba_rev = Mamba(*sizes, *forms), Mamba(*sizes, *forms)
        if tied:
            # The module itself and not its weight alone: whatever is done to one is done to the other.
            self.mamba_rev.in_proj = self.mamba_fwd.in_proj
            self.mamba_rev.out_proj = self.mamba_fwd.out_proj

    @property
    def out_proj(self) -> nn.Module:
        """The maps that write the output, which a stack scales by its depth."""
        if self.tied:
            return self.mamba_fwd.out_proj
        return nn.ModuleList([self.mamba_fwd.out_proj, self.mamba_rev.out_proj])

    def forward(
        self,
        x: Sequence,
        state: Any = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, tuple]:
        """The whole sequence; the state handed back is empty."""
        if state is not None:
            self.refuse()
        self.check_call(x, None, resets, dt)
        marks, back = backwards(x, resets, dt)
        ahead, behind = self.mamba_fwd, self.mamba_rev
        if not self.tied:
            y, z = ahead(x, resets=resets, dt=dt)[0], behind(x.flip(1), resets=marks, dt=back)[0].flip(1)
            return self._combined(y, z), ()
        inner = ahead.in_proj(x)
        y = ahead.inner(inner, None, resets, dt)[0]
        z = behind.inner(inner.flip(1), None, marks, back)[0].flip(1)
        if self.combine == "multiply":
            return ahead.out_proj(y) * ahead.out_proj(z), ()
        y = ahead.out_proj(self._combined(y, z))
        bias = ahead.out_proj.bias
        # Of two outputs that are added each has the bias.
        return (y if bias is None or self.combine == "mean" else y + bias), ()

    def _combined(self, y: Tensor, z: Tensor) -> Tensor:
        if self.combine == "multiply":
            return y * z
        return (y + z) / 2 if self.combine == "mean" else y + z

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of both directions."""
        return [*self.mamba_fwd.parameter_groups(), *self.mamba_rev.parameter_groups()]

    @classmethod
    def example(cls) -> "BiMamba":
        """A small instance."""
        return cls(8, d_state=4)
