"""S4ND: a state space system along each axis of a grid, run as one global convolution over the grid."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones._grid import GridMixer
from hippodrome.inits import spectrum, steps
from hippodrome.layers.gated_output import GatedOutput
from hippodrome.mixers.base import ParameterGroup, check_word
from hippodrome.ops import _pairs
from hippodrome.ops.discretize import zoh
from hippodrome.ops.fft_conv_nd import fft_conv_nd
from hippodrome.ops.vandermonde import vandermonde


class _AxisSystem(nn.Module):
    """Diagonal systems whose kernels run along one axis: ``rank`` of them a channel and direction."""

    def __init__(
        self, kernels: int, d_state: int, init: str, dt_min: float, dt_max: float, bandlimit: float | None
    ) -> None:
        super().__init__()
        poles = spectrum.S4D[init](d_state).expand(kernels, -1, -1)
        kind = torch.get_default_dtype()
        self.bandlimit = bandlimit
        self.log_dt = nn.Parameter(steps.log_uniform(kernels, dt_min, dt_max).log().to(kind))
        self.log_A_real = nn.Parameter((-poles[..., 0]).clamp_min(1e-4).log().to(kind))
        self.A_imag = nn.Parameter(poles[..., 1].to(kind).clone())
        self.C = nn.Parameter(torch.randn(kernels, d_state // 2, 2) * 0.5**0.5)

    def kernel(self, length: int, rate: float) -> Float[Tensor, "kernels length"]:
        """2 Re sum_n C_n (exp(dt A_n) - 1) / A_n exp(l dt A_n) with dt times ``rate``, B = 1."""
        wide = torch.promote_types(self.C.dtype, torch.float32)
        A = torch.stack([-torch.exp(self.log_A_real.to(wide)), self.A_imag.to(wide)], -1)
        step = rate * torch.exp(self.log_dt.to(wide))[:, None]
        C = 2 * self.C.to(wide)
        if self.bandlimit is not None:
            cycles = step * A[..., 1].abs() / (2 * math.pi)
            C = torch.where((cycles < self.bandlimit / 2)[..., None], C, 0.0)
        one = zoh(A, step)
        return vandermonde(one.log_a, _pairs.times(C, one.gain), length)


class S4ND(GridMixer):
    """K[l1, .., lm] = mean_r prod_a k_a^r[l_a], one global convolution with it, D x, GELU, gated linear unit.

    Nguyen et al. 2022, "S4ND: modeling images and videos as multidimensional signals using state spaces",
    arXiv 2210.06583, section 4, equations of the convolution view. The tokens of a row are the points of a
    grid in C order. Each axis has a bank of S4D systems of its own; at rank 1 the layer is the systems run
    along one axis after the other. With ``bidirectional`` each axis has a second kernel for the other
    direction, which begins at the next point. ``sizes`` and ``rate`` may be set anew: a model trained at one
    resolution runs at twice that with ``rate`` 0.5, best with a ``bandlimit``.

    Args:
        d_model: channels in and out.
        sizes: points of the grid along each axis; their product is the number of tokens.
        d_state: real size of each system's state.
        rank: kernels whose products are averaged.
        bidirectional: whether an axis is read both ways.
        init: where the poles start: "lin", "inv", "legs" or "real" (see ``inits.spectrum``).
        dt_min: smallest initial step size.
        dt_max: largest initial step size.
        bandlimit: states that turn faster than this share of the sampling rate's half are left out; None
            keeps all. The paper's change of resolution uses 0.2.
        rate: factor on all step sizes.

    Raises:
        ValueError: a size below 1, an unknown init, a rank below 1, or a bandlimit or rate not positive.
    """

    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        sizes: list[int],
        d_state: int = 64,
        rank: int = 1,
        bidirectional: bool = True,
        init: str = "legs",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        bandlimit: float | None = None,
        rate: float = 1.0,
    ) -> None:
        super().__init__()
        if not sizes or min(sizes) < 1 or rank < 1:
            raise ValueError(
                f"S4ND needs at least one axis, each of 1 point or more, and a rank of 1 or more; got "
                f"sizes={list(sizes)}, rank={rank}."
            )
        check_word("S4ND", "init", init, spectrum.S4D)
        if rate <= 0 or (bandlimit is not None and bandlimit <= 0):
            raise ValueError(f"rate and bandlimit are positive; got rate={rate}, bandlimit={bandlimit}.")
        self.d_model, self.sizes, self.rank, self.rate = d_model, list(sizes), rank, rate
        self.directions = 2 if bidirectional else 1
        kernels = self.directions * rank * d_model
        self.axes = nn.ModuleList(
            _AxisSystem(kernels, d_state, init, dt_min, dt_max, bandlimit) for _ in sizes
        )
        self.D = nn.Parameter(torch.randn(d_model))
        self.output = GatedOutput(d_model)

    def axis_kernel(self, axis: int) -> Float[Tensor, "r d lags"]:
        """The kernels along one axis: lags from 0 on, or from -(l - 1) on where it is read both ways."""
        length = self.sizes[axis]
        system: Any = self.axes[axis]
        both = system.kernel(length, self.rate).view(self.directions, self.rank, self.d_model, length)
        if self.directions == 1:
            return both[0]
        return torch.cat([both[1, ..., : length - 1].flip(-1), both[0]], -1)

    def kernel(self) -> Float[Tensor, "d *lags"]:
        """The kernel over the grid, without D."""
        product = self.axis_kernel(0)
        for axis in range(1, len(self.sizes)):
            product = product[..., None] * self._beside(self.axis_kernel(axis), axis)
        return product.mean(0)

    def _beside(self, kernel: Tensor, axis: int) -> Tensor:
        """(r, d, l) with an axis of 1 for each axis of the grid before its own."""
        return kernel.view(*kernel.shape[:2], *[1] * axis, kernel.shape[-1])

    def mixed(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """The convolution over a grid, and the output map."""
        origin = [size - 1 if self.directions == 2 else 0 for size in self.sizes]
        with torch.autocast(x.device.type, enabled=False):
            u = x.to(torch.promote_types(self.D.dtype, torch.float32))
            y = fft_conv_nd(u.unflatten(1, self.sizes), self.kernel(), origin).flatten(1, -2)
            y = y + self.D.to(u.dtype) * u
        return self.output(y.to(x.dtype))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Step sizes and poles: at most 1e-3, no decay."""
        systems: list[Any] = list(self.axes)
        slow = [p for s in systems for p in (s.log_dt, s.log_A_real, s.A_imag)]
        return [ParameterGroup(slow, max_lr=1e-3, decay=False)]

    @classmethod
    def example(cls) -> "S4ND":
        """A small instance over a grid of 4 x 5 points."""
        return cls(6, [4, 5], d_state=4)
