"""EVSS: a skip-sampling scan for what is far beside a convolution for what is near, both weighed alike."""

from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones._grid import GridMixer, over_grid
from hippodrome.backbones.ss2d import SS2D
from hippodrome.layers.channel_gate import ChannelGate
from hippodrome.mixers.base import ParameterGroup


class EVSS(GridMixer):
    """gate(ES2D(x)) + gate(conv(x)), conv a depthwise 3 x 3, batch norm, GELU and a 1 x 1, one gate for both.

    Pei, Huang, Xu 2024, "EfficientVMamba: atrous selective scan for light weight visual Mamba", arXiv
    2403.09977. ES2D is ``ss2d`` with the orders "atrous". The norm in front and the residual are the block's.

    Args:
        d_model: channels in and out.
        sizes: rows and columns of the grid; their product is the number of tokens.
        d_state: n of the scans.
        expand: channels of the scans as a multiple of d_model.
        orders: the scans', as in ``ss2d``; "cross" reads every point four times and not once.
        reduction: channels of the gate's mean as a multiple of its hidden ones.
    """

    mixes_channels = True
    recomputable = False

    def __init__(
        self,
        d_model: int,
        sizes: list[int],
        d_state: int = 16,
        expand: int = 2,
        orders: str = "atrous",
        reduction: int = 8,
    ) -> None:
        super().__init__()
        self.op = SS2D(d_model, sizes, d_state, expand, [orders])
        self.d_model, self.sizes = d_model, self.op.sizes
        self.conv_branch = nn.Sequential(
            nn.Conv2d(d_model, d_model, 3, padding=1, groups=d_model),
            nn.BatchNorm2d(d_model),
            nn.GELU(),
            nn.Conv2d(d_model, d_model, 1),
        )
        self.se = ChannelGate(d_model, max(1, d_model // reduction), normed=True)

    def mixed(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Both branches of a grid."""
        return self.se(self.op.mixed(x)) + self.se(over_grid(self.conv_branch, x, self.sizes))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of the scans."""
        return self.op.parameter_groups()

    @classmethod
    def example(cls) -> "EVSS":
        """A small instance over a grid of 3 x 4 points."""
        return cls(8, [3, 4], d_state=3)
