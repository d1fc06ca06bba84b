"""The inverted residual: wide in the middle, a depthwise convolution there, and a gate on its channels."""

from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones._grid import GridMixer, check_grid, over_grid
from hippodrome.layers.channel_gate import ChannelGate


class InvertedResidual(GridMixer):
    """A 1 x 1 to ``expand`` times the channels, a depthwise 3 x 3, a gate of its channels, a 1 x 1 back.

    Batch norm stands behind each convolution and ReLU behind the first two; the residual is the block's.

    Sandler, Howard, Zhu, Zhmoginov, Chen 2018, "MobileNetV2: inverted residuals and linear bottlenecks",
    arXiv 1801.04381, table 1, with the gate of Howard et al. 2019, arXiv 1905.02244, as in the later stages
    of EfficientVMamba (arXiv 2403.09977).

    Args:
        d_model: channels in and out.
        sizes: rows and columns of the grid; their product is the number of tokens.
        expand: wide channels as a multiple of d_model.
        squeeze: hidden channels of the gate as a share of the wide ones; 0 for no gate.
    """

    mixes_channels = True
    recomputable = False

    def __init__(self, d_model: int, sizes: list[int], expand: int = 4, squeeze: float = 0.125) -> None:
        super().__init__()
        wide = expand * d_model
        self.d_model, self.sizes = d_model, check_grid("InvertedResidual", sizes)
        self.near = nn.Sequential(
            nn.Conv2d(d_model, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
        )
        gate = ChannelGate(wide, max(1, int(squeeze * wide)), "relu")
        self.gate = gate if squeeze else nn.Identity()
        self.back = nn.Sequential(nn.Conv2d(wide, d_model, 1, bias=False), nn.BatchNorm2d(d_model))

    def mixed(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """What is added to a grid."""
        return over_grid(self.back, self.gate(over_grid(self.near, x, self.sizes)), self.sizes)

    @classmethod
    def example(cls) -> "InvertedResidual":
        """A small instance over a grid of 3 x 4 points."""
        return cls(4, [3, 4], expand=2, squeeze=0.5)
