"""A long convolution whose kernel is learned outright, kept smooth in effect by a soft threshold."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.gated_output import GatedOutput
from hippodrome.mixers._long_conv import LongConvolution
from hippodrome.mixers.base import ParameterGroup


class LongConv(LongConvolution):
    """y = k * x + D x with k = sign(K) relu(|K| - squash), then GELU and a gated linear unit.

    Fu et al. 2023, "Simple hardware-efficient long convolutions for sequence modeling", arXiv 2302.06646,
    section 3 and equation 1: the kernel K (d, max_length) is a parameter, and "squash" is the soft
    threshold that makes most of it exactly zero. The optional smoothing of the paper is left out.

    Args:
        d_model: channels in and out.
        max_length: taps of the kernel; older inputs are not seen.
        squash: the threshold.
        init: "random" (normal, 0.002) or "decay" (normal, 0.02, each channel fading at its own rate).
        kernel_dropout: share of taps set to zero in training.

    Raises:
        ValueError: an unknown init, or a kernel without taps.
    """

    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        max_length: int = 1024,
        squash: float = 0.001,
        init: str = "decay",
        kernel_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if max_length < 1:
            raise ValueError(f"A kernel needs at least one tap; got max_length={max_length}.")
        if init not in ("random", "decay"):
            raise ValueError(f"LongConv has no init {init!r}; expected one of random, decay.")
        self.d_model = d_model
        self.max_length = max_length
        self.squash = squash
        self.kernel_dropout = kernel_dropout
        K = torch.randn(d_model, max_length, dtype=torch.float64)
        if init == "decay":
            rate = (d_model / 2) ** (torch.arange(d_model, dtype=torch.float64) / d_model)
            age = torch.arange(max_length, dtype=torch.float64) / max_length
            K = 0.02 * K * torch.exp(-age * rate[:, None])
        else:
            K = 0.002 * K
        self.K = nn.Parameter(K.to(torch.get_default_dtype()))
        self.D = nn.Parameter(torch.randn(d_model))
        self.output = GatedOutput(d_model)

    def kernel(self, length: int) -> Float[Tensor, "d length"]:
        """The squashed taps."""
        K = self.K[:, :length].to(torch.promote_types(self.K.dtype, torch.float32))
        return F.dropout(F.softshrink(K, self.squash), self.kernel_dropout, self.training)

    def readout(self, y: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """GELU, linear, gate."""
        return self.output(y)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The kernel: at most 1e-3, no decay beside the threshold."""
        return [ParameterGroup([self.K], max_lr=1e-3, decay=False)]

    @classmethod
    def example(cls) -> "LongConv":
        """A small instance."""
        return cls(8, max_length=16)
