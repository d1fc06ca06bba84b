"""Mamba-2: a matrix state with one decay a head, run as matrix products over chunks."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hippodrome.layers.heads import check_divides, head_size
from hippodrome.layers.norm import GatedRMSNorm
from hippodrome.layers.projection import Projection
from hippodrome.layers.short_conv import ShortConv
from hippodrome.layers.step_size import initial_step_bias
from hippodrome.mixers._matrix_state import Channels, MatrixState
from hippodrome.mixers._memo import Memo
from hippodrome.mixers.base import ParameterGroup
from hippodrome.ops.ssd import ssd_packed
from hippodrome.ops.ssd_update import ssd_update
from hippodrome.shapes import Resets


class Mixed(NamedTuple):
    """What one token does to the states, for any number of tokens."""

    xBC: Channels
    """What is written, where, and the readout, side by side: cut apart, their gradients would be copied."""
    dt: Tensor
    """Step sizes, which decays are made from, in float32 or wider."""


class Mamba2(MatrixState):
    """[z | x B C | dt] = in_proj(u); x B C = silu(conv(x B C)); dt = clamp(softplus(dt + dt_bias));
    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T in each head, y_t = h_t C_t + D x_t, with A = -exp(A_log);
    out_proj(w RMS(y silu(z))).

    Dao, Gu 2024, "Transformers are SSMs", arXiv 2405.21060, equation 2 with scalar A (section 2.3), algorithm
    in section 6, block of section 7.1 and figure 6. Parameters carry the names and shapes of the authors'
    checkpoints. ``dt`` multiplies the step size after softplus and clamp, which act alike in ``step`` and
    ``forward``. A, D, step sizes and the state stay in float32 whatever autocast does.

    Args:
        d_model: channels in and out.
        d_state: n, the second size of a head's state.
        taps: of the short convolution.
        expand: channels of all heads together as a multiple of d_model.
        head_dim: p, channels of a head; None takes 64, or the largest even divisor below it.
        groups: of heads that share B and C; the norm before out_proj works over the same groups.
        chunk: tokens handled as one block of matrix products; changes speed, never the result.
        dt_min: smallest step size at the start.
        dt_max: largest step size at the start; between them they are log-uniform.
        dt_floor: bound below the first step sizes.
        dt_low: bound below the step sizes, always.
        dt_high: bound above them, always; None for no bound.
        A_min: smallest decay rate at the start.
        A_max: largest decay rate at the start; between them they are uniform.

    Raises:
        ValueError: head_dim does not divide expand * d_model, or groups does not divide the heads.
    """

    accepts_dt = True
    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        taps: int = 4,
        expand: int = 2,
        head_dim: int | None = None,
        groups: int = 1,
        chunk: int = 64,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_floor: float = 1e-4,
        dt_low: float = 0.0,
        dt_high: float | None = None,
        A_min: float = 1.0,
        A_max: float = 16.0,
    ) -> None:
        super().__init__()
        inner = expand * d_model
        head_dim = head_size(inner) if head_dim is None else head_dim
        check_divides("head_dim", head_dim, "expand * d_model", inner)
        self.heads = inner // head_dim
        check_divides("groups", groups, "the heads", self.heads)
        self.d_model = d_model
        self.matrix = (head_dim, d_state)
        self.groups = groups
        self.chunk = chunk
        self._memo: Memo[Tensor] = Memo()
        self.dt_low = dt_low
        self.dt_high = dt_high
        mixed = inner + 2 * groups * d_state
        self.parts = [inner, mixed, self.heads]
        self.in_proj = Projection(d_model, sum(self.parts), bias=False)
        self.conv1d = ShortConv(mixed, taps, silu=True)
        self.dt_bias = nn.Parameter(initial_step_bias(self.heads, dt_min, dt_max, dt_floor))
        self.A_log = nn.Parameter(torch.log(torch.empty(self.heads).uniform_(A_min, A_max)))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = GatedRMSNorm(inner, groups)
        self.out_proj = Projection(inner, d_model, bias=False)

    @property
    def conv(self) -> ShortConv:  # type: ignore[override]
        """The short convolution under the engine's name."""
        return self.conv1d

    def project(self, x: Channels) -> tuple[Channels, tuple[Tensor, Tensor]]:
        """x, B and C for the convolution; the gate and the raw step sizes set aside."""
        z, mixed, raw = self.in_proj(x).split_with_sizes(self.parts, -1)
        return mixed, (z, raw)

    def drive(self, inner: Channels, side: tuple[Tensor, Tensor], dt: Tensor | None) -> Mixed:
        """The convolved channels as they are, and the step size, which the decay is made from."""
        wide = torch.promote_types(self.dt_bias.dtype, torch.float32)
        sizes = F.softplus(side[1].to(wide) + self.dt_bias.to(wide)).clamp(self.dt_low, self.dt_high)
        return Mixed(inner, sizes if dt is None else sizes * dt[..., None].to(wide))

    def write(self, drive: Mixed, S: Tensor) -> tuple[Tensor, Tensor]:
        """h = exp(dt A) h + dt x B^T; y = h C + D x."""
        dt, (head_dim, n), per = drive.dt, self.matrix, self.heads // self.groups
        parts = [self.heads * head_dim, self.groups * n, self.groups * n]
        x, B, C = drive.xBC.to(dt.dtype).split(parts, -1)
        x = x.unflatten(-1, (self.heads, head_dim))
        B, C = (m.unflatten(-1, (self.groups, n)).repeat_interleave(per, 1)[:, :, None] for m in (B, C))
        S = torch.addcmul(
            S * torch.exp(dt * self._rates())[..., None, None], (x * dt[..., None])[..., None], B
        )
        return (S * C).sum(-1) + self.D.to(dt.dtype)[:, None] * x, S

    def write_(self, inner: Channels, side: tuple[Tensor, Tensor], dt: Tensor | None, S: Tensor) -> Tensor:
        """The rule for one token in place, the step size made inside."""
        head_dim, n = self.matrix
        x, B, C = inner.split_with_sizes([self.heads * head_dim, self.groups * n, self.groups * n], -1)
        grouped = (-1, self.groups, n)
        raw = side[1] if dt is None else self.drive(inner, side, dt).dt
        return ssd_update(
            x.view(-1, self.heads, head_dim),
            raw,
            self._memo.get(self, self._rates),
            B.view(grouped),
            C.view(grouped),
            self.D,
            self.dt_bias if dt is None else None,
            S,
            softplus=dt is None,
            low=self.dt_low if dt is None else -math.inf,
            high=math.inf if dt is not None or self.dt_high is None else self.dt_high,
        )

    def scan(self, drive: Mixed, S: Tensor | None, resets: Resets | None) -> tuple[Tensor, Tensor]:
        """The same by state space duality."""
        groups, n = self.groups, self.matrix[1]
        A = self._rates()
        return ssd_packed(
            drive.xBC, drive.dt, A, self.D, S, resets, groups=groups, d_state=n, chunk=self.chunk
        )

    def readout(self, y: Tensor, side: tuple[Tensor, Tensor]) -> Channels:
        """The gate and the grouped norm, then a linear map."""
        return self.out_proj(self.norm(y.flatten(-2), side[0]))

    def parameter_groups(self) -> list[ParameterGroup]:
        """A and the step sizes, which set time scales, at 1e-3 at most; they and D without decay.

        Decay would pull every rate towards 1 and every step size towards softplus(0): no prior worth having.
        """
        return [
            ParameterGroup([self.A_log, self.dt_bias], max_lr=1e-3, decay=False),
            ParameterGroup([self.D], decay=False),
        ]

    def _rates(self) -> Tensor:
        return -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))

    @classmethod
    def example(cls) -> "Mamba2":
        """A small instance."""
        return cls(8, d_state=4, head_dim=4, groups=2, chunk=4)
