"""SGConv: a long convolution whose kernel is a few short ones, each stretched to twice the length before."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.gated_output import GatedOutput
from hippodrome.mixers._long_conv import LongConvolution
from hippodrome.mixers.base import ParameterGroup


class SGConv(LongConvolution):
    """y = k * x + D x, k = [w_0 | a stretch(w_1, 1) | a^2 stretch(w_2, 2) | a^3 stretch(w_3, 4) ...] / Z.

    Li, Cai, Zhang, Chen, Dey 2022, "What makes convolutional models great on long sequence modeling?",
    arXiv 2210.09298, equation 1. There are S = 1 + ceil(log2(l / n)) short kernels of n taps each, so that
    parameters grow with log l; the i-th is stretched by linear interpolation to n 2^(i-1) taps and weighted
    by a^i, a = 1 / ``decay``. GELU and a gated linear unit follow.

    Z is the length over time of the first kernel, measured before it is cut to ``max_length``, one a channel.
    The authors measure it at the first forward call; here it is made with the first kernel, since nothing in
    between changes that, and is a buffer: saved, loaded and never measured again.

    Args:
        d_model: channels in and out.
        max_length: taps of the kernel; older inputs are not seen.
        kernel_dim: taps n of each short kernel.
        decay_min: the first channel's factor between the weights of one short kernel and the next.
        decay_max: the last channel's; those between lie evenly.
        kernel_lr: the most that the short kernels' learning rate may be.
        gated: whether the GELU and the gated linear unit follow.

    Raises:
        ValueError: a kernel without taps, or a decay that is not positive.
    """

    mixes_channels = True
    reversed_from = "offset"

    norm: Tensor
    scale: Tensor

    def __init__(
        self,
        d_model: int,
        max_length: int = 1024,
        kernel_dim: int = 64,
        decay_min: float = 2.0,
        decay_max: float = 2.0,
        kernel_lr: float = 1e-3,
        gated: bool = True,
    ) -> None:
        super().__init__()
        if max_length < 1 or kernel_dim < 1:
            raise ValueError(
                f"A kernel needs at least one tap; got max_length={max_length}, kernel_dim={kernel_dim}."
            )
        if min(decay_min, decay_max) <= 0:
            raise ValueError(f"Decays are positive factors; got {decay_min} to {decay_max}.")
        self.d_model, self.max_length, self.kernel_dim = d_model, max_length, kernel_dim
        self.kernel_lr = kernel_lr
        self.scales = 1 + max(0, math.ceil(math.log2(max_length / kernel_dim)))
        self.w = nn.Parameter(torch.randn(d_model, self.scales, kernel_dim))
        self.D = nn.Parameter(torch.randn(d_model))
        decay = torch.linspace(decay_min, decay_max, d_model)[:, None]
        self.register_buffer("scale", decay ** -torch.arange(self.scales), persistent=False)
        with torch.no_grad():
            self.register_buffer("norm", self._taps_up_to(self.reach).norm(dim=1, keepdim=True))
        self.output = GatedOutput(d_model) if gated else nn.Identity()

    @property
    def reach(self) -> int:
        """Taps of the whole kernel before it is cut: n 2^(S - 1)."""
        return self.kernel_dim << (self.scales - 1)

    def kernel(self, length: int) -> Float[Tensor, "d length"]:
        """The short kernels, stretched, weighted, one behind the other, over the first kernel's size."""
        taps = self._taps_up_to(length)
        return taps / self.norm.to(taps.dtype)

    def _taps_up_to(self, length: int) -> Tensor:
        wide = torch.promote_types(self.w.dtype, torch.float32)
        w = self.w.to(wide) * self.scale.to(wide)[..., None]
        pieces, made = [w[:, 0]], self.kernel_dim
        for i in range(1, self.scales):
            if made >= length:
                break
            pieces.append(F.interpolate(w[:, i : i + 1], scale_factor=1 << (i - 1), mode="linear")[:, 0])
            made += self.kernel_dim << (i - 1)
        return torch.cat(pieces, 1)[:, :length]

    def readout(self, y: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """GELU, linear, gate."""
        return self.output(y)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The short kernels: at most ``kernel_lr``; weights decay as elsewhere."""
        return [ParameterGroup([self.w], max_lr=self.kernel_lr)]

    @classmethod
    def example(cls) -> "SGConv":
        """A small instance: three short kernels, of which the last is cut."""
        return cls(8, max_length=13, kernel_dim=4)
