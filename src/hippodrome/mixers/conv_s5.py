"""ConvS5: a diagonal state space system over feature maps, written and read by convolutions over space."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.inits import spectrum, steps
from hippodrome.layers.projection import Projection
from hippodrome.mixers._frames import channels_of, check_taps, unflatten
from hippodrome.mixers._memo import Memo
from hippodrome.mixers.base import Mixer, ParameterGroup, check_word
from hippodrome.ops import _pairs
from hippodrome.ops.conv_scan import conv_scan
from hippodrome.ops.conv_scan.torch_ import convolve, taps_in, taps_out
from hippodrome.ops.discretize import zoh
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

FEEDS = ("resnet", "skip")
ACTIVATIONS = ("gelu", "glu", "none")
LARGEST_REAL = -1e-4
"""Where ``clip_eigs`` stops the real part of a pole."""


class State(NamedTuple):
    """What a ConvS5 carries from frame to frame."""

    x: Float[Tensor, "b i j n 2"]
    """Feature maps of n complex channels, in float32 or wider."""


class _Tables(NamedTuple):
    """The system in float32 or wider: poles and steps, B, C, and one step with dt = 1."""

    A: Float[Tensor, "n 2"]
    size: Float[Tensor, "n"]
    B: Float[Tensor, "n d k k 2"]
    C: Float[Tensor, "d n k k 2"]
    factor: Float[Tensor, "n 2"]
    gain: Float[Tensor, "n 2"]


class ConvS5(Mixer):
    """x_k = Abar x_{k-1} + Bbar * u_k, y_k = 2 Re (C * x_k) with * a convolution over space; then a residual.

    Smith, De Mello, Kautz, Linderman, Byeon 2023, "Convolutional state space models for long-range
    spatiotemporal modeling", arXiv 2310.19694, section 3, equations of the convolutional system: S5 (arXiv
    2208.04933) at every point of a frame, with B and C that reach ``kernel`` points along each axis. A is
    diagonal and the same at every point, at first the normal part of HiPPO-LegS; B and C are at first random
    maps into and out of the basis of its eigenvectors; a step is a zero-order hold. All frames are convolved
    at once and all points scanned at once, in place of a step after the other.

    A token is a frame flattened: x (b, t, d_model) holds rows, columns, channels, the last innermost, so
    d_model = sizes[0] * sizes[1] * channels. Norms around this mixer in a stack are over the channels of each
    point, so that what is learned of one place holds at all. ``dt`` multiplies the step size.

    What stands in the place of D, by name: "resnet", the paper's choice where the input reaches the output by
    the block's residual alone: y + conv(gelu(norm(conv(gelu(norm(y)))))), both convolutions 3 x 3 and the
    norms by groups of channels; or "skip": y + D u with one number for each channel.

    Args:
        d_model: numbers of a flattened frame, in and out.
        sizes: rows and columns of the frame.
        d_state: real size P of the state of each point; P / 2 complex numbers are kept.
        kernel: taps of B and C along each axis, odd.
        feed: "resnet" or "skip".
        groups: of the norms of "resnet"; as many of them as divide the channels, at most.
        activation: what follows: "gelu"; "glu", a gated linear unit of GELU at each point; or "none".
        dt_min: smallest initial step size.
        dt_max: largest initial step size.
        clip_eigs: hold the real part of every pole at -1e-4 or less.

    Raises:
        ValueError: sizes that do not divide d_model, an even kernel, or an unknown name.
    """

    accepts_dt = True
    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        sizes: list[int],
        d_state: int = 64,
        kernel: int = 3,
        feed: str = "resnet",
        groups: int = 32,
        activation: str = "gelu",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        clip_eigs: bool = True,
    ) -> None:
        super().__init__()
        check_word("ConvS5", "feed", feed, FEEDS)
        check_word("ConvS5", "activation", activation, ACTIVATIONS)
        check_taps("ConvS5", kernel)
        self.d_model, self.sizes = d_model, list(sizes)
        self.point_channels = channels = channels_of("ConvS5", d_model, sizes)
        self.activation, self.clip_eigs = activation, clip_eigs
        here = torch.get_default_device()
        with torch.device("cpu"):  # decompositions read their numbers, which a meta device does not have
            parts = spectrum.hippo_blocks(d_state, 1)
        poles, V, inverse = (x.contiguous().to(here) for x in parts)
        V, inverse = torch.view_as_complex(V), torch.view_as_complex(inverse)
        # He et al. 2015: deviation sqrt(2 / fan-in) in the basis of the matrix.
        taps = kernel * kernel
        B = torch.randn(d_state, channels * taps, dtype=torch.float64) * (2 / (channels * taps)) ** 0.5
        C = torch.randn(channels, taps, d_state, dtype=torch.float64) * (2 / (d_state * taps)) ** 0.5
        B = (inverse @ B.to(inverse.dtype)).view(-1, channels, kernel, kernel)
        C = (C.to(V.dtype) @ V).view(channels, kernel, kernel, -1).movedim(-1, 1).contiguous()
        kind = torch.get_default_dtype()
        self.log_dt = nn.Parameter(steps.log_uniform(len(poles), dt_min, dt_max).log().to(kind))
        self.A = nn.Parameter(poles.to(kind))
        self.B = nn.Parameter(torch.view_as_real(B).to(kind))
        self.C = nn.Parameter(torch.view_as_real(C).to(kind))
        self.D = nn.Parameter(torch.randn(channels)) if feed == "skip" else None
        self.feed = _Residual(channels, math.gcd(groups, channels)) if feed == "resnet" else None
        self.gate = Projection(channels, 2 * channels) if activation == "glu" else None
        self._memo: Memo[_Tables] = Memo()

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        wide = torch.promote_types(self.A.dtype, torch.float32)
        return State(self.A.new_zeros(batch, *self.sizes, *self.A.shape, dtype=wide))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One frame: two convolutions, and the recurrence between them."""
        tables = self._memo.get(self, self._make, self.clip_eigs)
        frame = unflatten(x_t, self.sizes)
        u, before = (z.to(tables.factor.dtype) for z in (frame, state.x))
        with torch.autocast(x_t.device.type, enabled=False):
            factor, gain = tables.factor, tables.gain
            if dt_t is not None:
                log_a, gain = (z[:, None, None] for z in self._one(tables, dt_t))
                factor = _pairs.exp(log_a)
            written = convolve(u, taps_in(tables.B)).unflatten(-1, (-1, 2))
            x = _pairs.times(factor, before) + _pairs.times(gain, written)
            y = convolve(x.flatten(-2), taps_out(tables.C))
        return self._readout(y.to(x_t.dtype), frame).flatten(-3), State(x)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many frames: all convolved at once, and one scan of all points."""
        self.check_call(x, state, resets, dt)
        tables = self._memo.get(self, self._make, self.clip_eigs)
        factor, gain = tables.factor, tables.gain
        if dt is not None:
            log_a, gain = self._one(tables, dt)
            factor = _pairs.exp(log_a)
        frames = unflatten(x, self.sizes)
        u = frames.to(factor.dtype)
        y, last = conv_scan(u, factor, gain, tables.B, tables.C, None if state is None else state.x, resets)
        return self._readout(y.to(x.dtype), frames).flatten(-3), State(last)

    def _make(self) -> _Tables:
        wide = torch.promote_types(self.A.dtype, torch.float32)
        A = self.A.to(wide)
        if self.clip_eigs:
            A = torch.stack([A[..., 0].clamp_max(LARGEST_REAL), A[..., 1]], -1)
        size = torch.exp(self.log_dt.to(wide))
        log_a, gain = zoh(A, size)
        return _Tables(A, size, self.B.to(wide), self.C.to(wide), _pairs.exp(log_a), gain)

    def _one(self, tables: _Tables, dt: Float[Tensor, "*tokens"]) -> tuple[Tensor, Tensor]:
        """One step of every token, dt times its own size: log of the factor, and gain, (..., n, 2)."""
        log_a, gain = zoh(tables.A, dt.to(tables.size.dtype)[..., None] * tables.size)
        return log_a, gain

    def _readout(self, y: Tensor, u: Tensor) -> Tensor:
        """What follows the system at each frame alone, (..., rows, columns, channels)."""
        if self.D is not None:
            y = torch.addcmul(y, self.D, u)
        if self.feed is not None:
            y = self.feed(y)
        if self.activation == "none":
            return y
        y = F.gelu(y)
        return y if self.gate is None else F.glu(self.gate(y), -1)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Step sizes, poles and B: at most 1e-3, no decay."""
        return [ParameterGroup([self.log_dt, self.A, self.B], max_lr=1e-3, decay=False)]

    @classmethod
    def example(cls) -> "ConvS5":
        """A small instance: frames of 2 x 2 points with three channels."""
        return cls(12, [2, 2], d_state=4)


class _Residual(nn.Module):
    """y + conv(gelu(norm(conv(gelu(norm(y)))))) over frames, channels innermost."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(groups, channels) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, y: Float[Tensor, "*b i j d"]) -> Float[Tensor, "*b i j d"]:
        """Each frame by itself."""
        maps = y.flatten(0, -4).permute(0, 3, 1, 2)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            maps = conv(F.gelu(norm(maps)))
        return y + maps.permute(0, 2, 3, 1).reshape(y.shape)
