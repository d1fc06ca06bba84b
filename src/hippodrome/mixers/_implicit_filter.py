"""The implicit filter of Hyena: long kernels as a small network of the position, fading with it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.mixers._memo import Memo
from hippodrome.mixers.base import ParameterGroup

TARGET, FAST, SLOW = 1e-2, 0.3, 1.5
"""The fastest channel has faded to TARGET after FAST of the length, the slowest would have after SLOW."""


class ImplicitFilter(nn.Module):
    """h_c(t) = e^(-|delta_c| t) (W_out sin(f (W_m ... sin(f (W_0 z(t) + b_0)) ... + b_m)))_c, t in [0, 1].

    Poli et al. 2023, "Hyena hierarchy: towards larger convolutional language models", arXiv 2302.10866,
    section 3.3 and algorithm 2. z(t) are features of the position: t itself, and cosine and minus sine of
    2 pi f_i j / L for bands f_i from 1e-4 to their number less one. The features are parameters, as
    published, which move slowly. The frequencies f of the sine are learned, one for each unit, the same in
    all layers. Rates delta are fixed, evenly spaced over the channels.

    Args:
        channels: of the filter.
        max_length: L, its taps.
        width: units of a layer.
        inner: layers between the first and the last, at least 1.
        features: of a position; odd, at least 3.
        frequency: f at the start.

    Raises:
        ValueError: no taps, no inner layer, or features that are even or fewer than 3.
    """

    deltas: Tensor

    def __init__(
        self, channels: int, max_length: int, width: int, inner: int, features: int, frequency: float
    ) -> None:
        super().__init__()
        self._memo: Memo[Tensor] = Memo()
        if max_length < 1 or inner < 1:
            raise ValueError(
                "An implicit filter needs at least one tap and one inner layer; got "
                f"max_length={max_length}, inner={inner}."
            )
        if features < 3 or not features % 2:
            raise ValueError(
                "The features of a position are its time and a cosine and a sine for each band, an odd "
                f"number of 3 or more; got {features}."
            )
        bands = (features - 1) // 2
        place = torch.arange(max_length, dtype=torch.float64)
        angle = 2 * math.pi / max_length * place[:, None] * torch.linspace(1e-4, bands - 1, bands).double()
        kind = torch.get_default_dtype()
        t = torch.linspace(0, 1, max_length, dtype=torch.float64)
        self.positions = nn.Parameter(torch.cat([t[:, None], angle.cos(), -angle.sin()], 1).to(kind))
        self.frequency = nn.Parameter(torch.full((width,), float(frequency)))
        # Held here and not in linear layers: the memo sees the parameters of this module alone.
        self.first, self.first_bias = _uniform(width, features), _uniform(width, fan=features)
        self.inner, self.inner_bias = _uniform(inner, width, width), _uniform(inner, width, fan=width)
        self.last = _uniform(channels, width)
        rates = torch.linspace(math.log(TARGET) / SLOW, math.log(TARGET) / FAST, channels).abs()
        self.register_buffer("deltas", rates.to(kind), persistent=False)

    def forward(self, length: int) -> Float[Tensor, "channels length"]:
        """The first ``length`` <= L taps, in float32 or wider."""
        wide = torch.promote_types(self.last.dtype, torch.float32)
        with torch.autocast(self.last.device.type, enabled=False):
            f = self.frequency.to(wide)
            y = torch.sin(f * _affine(self.positions[:length], self.first, self.first_bias, wide))
            for weight, bias in zip(self.inner, self.inner_bias, strict=True):
                y = torch.sin(f * _affine(y, weight, bias, wide))
            t = torch.linspace(0, 1, len(self.positions), dtype=wide, device=y.device)[:length]
            return (self.last.to(wide) @ y.T) * torch.exp(-self.deltas.to(wide)[:, None] * t)

    def windows(self, filters: int) -> Float[Tensor, "filters d length"]:
        """All taps, oldest first, as they meet a window of inputs; channels are dealt to so many filters.

        One after the other, so that each filter has channels of all rates of fading. Kept between tokens.
        """

        def make() -> Tensor:
            taps = self(len(self.positions)).flip(1)
            return taps.unflatten(0, (-1, filters)).transpose(0, 1).contiguous()

        return self._memo.get(self, make, filters)

    def groups(self) -> list[ParameterGroup]:
        """The network at 1e-3 at most, the features of positions at 1e-5; no decay."""
        network = [self.first, self.first_bias, self.inner, self.inner_bias, self.last, self.frequency]
        return [
            ParameterGroup(network, max_lr=1e-3, decay=False),
            ParameterGroup([self.positions], max_lr=1e-5, decay=False),
        ]


def _affine(x: Tensor, weight: Tensor, bias: Tensor, wide: torch.dtype) -> Tensor:
    return x.to(wide) @ weight.to(wide).T + bias.to(wide)


def _uniform(*shape: int, fan: int | None = None) -> nn.Parameter:
    """First values as those of ``torch.nn.Linear``; ``fan`` inputs, None for as many as the last axis has."""
    bound = (shape[-1] if fan is None else fan) ** -0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
