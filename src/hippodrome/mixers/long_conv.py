"""A long convolution whose kernel is learned outright, kept smooth in effect by a soft threshold."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.gated_output import GatedOutput
from hippodrome.mixers._long_conv import LongConvolution
from hippodrome.mixers.base import ParameterGroup, check_word

FORMER = {"decay": "double_exp"}
"""Names of inits that older settings have."""


class LongConv(LongConvolution):
    """y = k * x + D x with k = sign(K) relu(|K| - squash), then GELU and a gated linear unit.

    Fu et al. 2023, "Simple hardware-efficient long convolutions for sequence modeling", arXiv 2302.06646,
    section 3 and equation 1: the kernel K (d, max_length) is a parameter, and "squash" is the soft
    threshold that makes most of it exactly zero. The optional "smooth" comes before it: the mean of
    neighbouring taps, or a Gaussian window moved over the kernel's spectrum, as in the authors' code.

    With init "random" and squash 0.001 six in ten taps pass the threshold at first, with squash 0.002 three
    in ten. A tap inside it is zero and, without smoothing, has no gradient, so it stays there: keep the
    threshold at or below the scale of the init.

    Args:
        d_model: channels in and out.
        max_length: taps of the kernel; older inputs are not seen.
        squash: the threshold.
        init: "random" (normal, 0.002) or "double_exp" (normal, 0.02, times exp(-(j / l) (d / 2)^(i / d)) at
            tap j of channel i; formerly named "decay").
        kernel_dropout: share of taps set to zero in training.
        smooth: "none", "mean" over taps, or "gaussian" over frequencies.
        smooth_width: taps, or frequencies, that are smoothed over; odd.
        kernel_lr: the most that the kernel's learning rate may be.
        gated: whether the GELU and the gated linear unit follow.

    Raises:
        ValueError: an unknown init or smooth, a kernel without taps, or an even width.
    """

    mixes_channels = True
    reversed_from = "offset"

    def __init__(
        self,
        d_model: int,
        max_length: int = 1024,
        squash: float = 0.001,
        init: str = "double_exp",
        kernel_dropout: float = 0.0,
        smooth: str = "none",
        smooth_width: int = 7,
        kernel_lr: float = 1e-3,
        gated: bool = True,
    ) -> None:
        super().__init__()
        check_word("LongConv", "smooth", smooth, SMOOTH)
        if smooth_width < 1 or smooth_width % 2 == 0:
            raise ValueError(
                f"Smoothing is over an odd number of taps, as many before as behind; got {smooth_width}."
            )
        self.d_model = d_model
        self.max_length = max_length
        self.squash = squash
        self.kernel_dropout = kernel_dropout
        self.smooth, self.smooth_width = smooth, smooth_width
        self.kernel_lr = kernel_lr
        self.K = nn.Parameter(initial_taps(d_model, max_length, init))
        self.D = nn.Parameter(torch.randn(d_model))
        self.output = GatedOutput(d_model) if gated else nn.Identity()

    def kernel(self, length: int) -> Float[Tensor, "d length"]:
        """The taps, smoothed, squashed, some dropped in training."""
        K = self.K.to(torch.promote_types(self.K.dtype, torch.float32))
        smoothed = SMOOTH[self.smooth](K, length, self.smooth_width)
        return F.dropout(F.softshrink(smoothed, self.squash), self.kernel_dropout, self.training)

    def readout(self, y: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """GELU, linear, gate."""
        return self.output(y)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The kernel: at most ``kernel_lr``, no decay beside the threshold."""
        return [ParameterGroup([self.K], max_lr=self.kernel_lr, decay=False)]

    @classmethod
    def example(cls) -> "LongConv":
        """A small instance."""
        return cls(8, max_length=16)


def initial_taps(d: int, length: int, init: str) -> Float[Tensor, "d length"]:
    """Taps as training begins.

    Raises:
        ValueError: an unknown init, or no taps.
    """
    if length < 1:
        raise ValueError(f"A kernel needs at least one tap; got max_length={length}.")
    init = FORMER.get(init, init)
    check_word("LongConv", "init", init, ["random", "double_exp"])
    K = torch.randn(d, length, dtype=torch.float64)
    if init == "double_exp":
        rate = (d / 2) ** (torch.arange(d, dtype=torch.float64) / d)
        age = torch.arange(length, dtype=torch.float64) / length
        K = 0.02 * K * torch.exp(-age * rate[:, None])
    else:
        K = 0.002 * K
    return K.to(torch.get_default_dtype())


def _as_it_is(K: Tensor, length: int, width: int) -> Tensor:
    return K[:, :length]


def _mean(K: Tensor, length: int, width: int) -> Tensor:
    """The mean over ``width`` taps around each; those beyond the ends count as zeros."""
    half = width // 2
    reach = min(K.shape[1], length + half)
    return F.avg_pool1d(F.pad(K[:, :reach], (half, half)), width, 1)[:, :length]


def _gaussian(K: Tensor, length: int, width: int) -> Tensor:
    """Every frequency the sum over ``width`` around it, weighted by exp(-distance^2 / 2), as published."""
    spectrum = torch.view_as_real(torch.fft.rfft(K))
    distance = torch.arange(width, dtype=K.dtype, device=K.device) - width // 2
    weight = torch.exp(-0.5 * distance**2).view(1, 1, width)
    parts = spectrum.permute(0, 2, 1).flatten(0, 1)[:, None]
    smoothed = F.conv1d(parts, weight, padding=width // 2).view(K.shape[0], 2, -1).permute(0, 2, 1)
    return torch.fft.irfft(torch.view_as_complex(smoothed.contiguous()), K.shape[1])[:, :length]


SMOOTH = {"none": _as_it_is, "mean": _mean, "gaussian": _gaussian}
"""(taps, how many are wanted, width) to smoothed taps."""
