"""Mamba-2: a matrix state with one decay a head, run as matrix products over chunks."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.heads import check_divides, head_size
from hippodrome.layers.norm import GatedRMSNorm
from hippodrome.layers.projection import Projection
from hippodrome.layers.short_conv import ShortConv
from hippodrome.layers.step_size import initial_step_bias
from hippodrome.mixers._matrix_state import Channels, MatrixState, State
from hippodrome.mixers._memo import Memo
from hippodrome.mixers.base import ParameterGroup
from hippodrome.ops.linear_scan import linear_scan
from hippodrome.ops.ssd import ssd, ssd_packed
from hippodrome.ops.ssd_update import ssd_update
from hippodrome.shapes import Resets, Sequence


class Mixed(NamedTuple):
    """What one token does to the states, for any number of tokens."""

    xBC: Channels
    """What is written, where, and the readout, side by side: cut apart, their gradients would be copied."""
    dt: Tensor
    """Step sizes, which decays are made from, in float32 or wider."""


class Side(NamedTuple):
    """What is set aside before the convolution, for any number of tokens."""

    z: Channels
    """The gate."""
    raw: Channels
    """Step sizes before their bias and softplus."""
    mlp: Channels | None
    """silu(z0) x0 of the channels that pass by the recurrence."""


class Mamba2(MatrixState):
    """[z | x B C | dt] = in_proj(u); x B C = silu(conv(x B C)); dt = clamp(softplus(dt + dt_bias));
    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T in each head, y_t = h_t C_t + D x_t, with A = -exp(A_log);
    out_proj(w RMS(y silu(z))).

    Dao, Gu 2024, "Transformers are SSMs", arXiv 2405.21060, equation 2 with scalar A (section 2.3), algorithm
    in section 6, block of section 7.1 and figure 6. Parameters carry the names and shapes of the authors'
    checkpoints. ``dt`` multiplies the step size after softplus and clamp, which act alike in ``step`` and
    ``forward``. A, D, step sizes and the state stay in float32 whatever autocast does.

    Channels of the recurrence may be fewer than all: with d_ssm < d_inner the rest, silu(z0) x0 with z0 and
    x0 before z in in_proj, stand before the heads in what out_proj reads.

    Args:
        d_model: channels in and out.
        d_state: n, the second size of a head's state.
        taps: of the short convolution.
        expand: channels of all heads together as a multiple of d_model.
        head_dim: p, channels of a head; None takes 64, or the largest even divisor below it.
        groups: of heads that share B and C; the norm before out_proj works over the same groups unless
            norm_groups says otherwise.
        chunk: tokens handled as one block of matrix products; changes speed, never the result.
        dt_min: smallest step size at the start.
        dt_max: largest step size at the start; between them they are log-uniform.
        dt_floor: bound below the first step sizes.
        dt_low: bound below the step sizes, always.
        dt_high: bound above them, always; None for no bound.
        A_min: smallest decay rate at the start.
        A_max: largest decay rate at the start; between them they are uniform.
        d_inner: channels that out_proj reads, where they are not expand * d_model.
        d_ssm: channels of all heads together, where they are not all of those; the rest are a gated MLP.
        norm: whether there is a norm before out_proj; without one, y silu(z) goes there as it is.
        norm_groups: equal runs of channels with a mean square each; None takes ``groups``.
        norm_before_gate: w RMS(y) silu(z) in place of w RMS(y silu(z)).
        norm_eps: added to the mean squares.
        D_per_channel: whether D has a number for each channel, (d_ssm), not one for each head.
        proj_bias: whether the input and the output map have biases.
        conv_bias: whether the short convolution has one.
        learn_init: whether the state before the first token, and after each reset, is a parameter,
            init_states (h, p, n), zero at the start.
        in_scales: five factors, of z, x, B, C and dt as in_proj gives them, as in Falcon-H1 (Zuo et al. 2025,
            arXiv 2507.22448); None for ones.

    Raises:
        ValueError: head_dim does not divide the channels of the recurrence, groups does not divide the heads,
            norm_groups not those channels, d_ssm is larger than d_inner, or in_scales are not five.
    """

    accepts_dt = True
    mixes_channels = True
    in_scale: Tensor | None

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
        d_inner: int | None = None,
        d_ssm: int | None = None,
        norm: bool = True,
        norm_groups: int | None = None,
        norm_before_gate: bool = False,
        norm_eps: float = 1e-5,
        D_per_channel: bool = False,
        proj_bias: bool = False,
        conv_bias: bool = True,
        learn_init: bool = False,
        in_scales: list[float] | None = None,
    ) -> None:
        super().__init__()
        whole = expand * d_model if d_inner is None else d_inner
        inner = whole if d_ssm is None else d_ssm
        if not 0 < inner <= whole:
            raise ValueError(
                f"d_ssm, the channels of the recurrence, is at least 1 and at most d_inner = {whole}; got "
                f"{inner}. Leave it out to give all channels to the recurrence."
            )
        head_dim = head_size(inner) if head_dim is None else head_dim
        usual = d_inner is None and d_ssm is None
        named = "expand * d_model" if usual else "the channels of the recurrence"
        check_divides("head_dim", head_dim, named, inner)
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
        self.passing = whole - inner
        """Channels of the gated MLP beside the recurrence."""
        self.parts = [inner, mixed, self.heads]
        if in_scales is not None and len(in_scales) != 5:
            raise ValueError(
                f"in_scales has five factors, for z, x, B, C and dt; got {len(in_scales)}. Leave it "
                "out for ones."
            )
        sizes = [inner, inner, groups * d_state, groups * d_state, self.heads]
        parts = [torch.full((n,), s) for s, n in zip(in_scales or [], sizes, strict=False)]
        self.register_buffer("in_scale", torch.cat(parts) if parts else None, persistent=False)
        self.in_proj = Projection(d_model, 2 * self.passing + sum(self.parts), bias=proj_bias)
        self.conv1d = ShortConv(mixed, taps, silu=True, bias=conv_bias)
        self.dt_bias = nn.Parameter(initial_step_bias(self.heads, dt_min, dt_max, dt_floor))
        self.A_log = nn.Parameter(torch.log(torch.empty(self.heads).uniform_(A_min, A_max)))
        self.D = nn.Parameter(torch.ones(inner if D_per_channel else self.heads))
        self.D_per_channel = D_per_channel
        runs = groups if norm_groups is None else norm_groups
        self.norm = GatedRMSNorm(inner, runs, norm_eps, before_gate=norm_before_gate) if norm else None
        self.out_proj = Projection(whole, d_model, bias=proj_bias)
        first = (self.heads, head_dim, d_state)
        self.init_states = nn.Parameter(torch.zeros(first)) if learn_init else None

    @property
    def conv(self) -> ShortConv:  # type: ignore[override]
        """The short convolution under the engine's name."""
        return self.conv1d

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros, or the learned state in each row, through which gradients flow; it does not grow."""
        zeros = super().init_state(batch)
        return zeros if self.init_states is None else State(zeros.window, zeros.S + self.init_states)

    def project(self, x: Channels) -> tuple[Channels, Side]:
        """x, B and C for the convolution; the gate, the raw step sizes and what passes by set aside."""
        mlp, whole = None, self.in_proj(x)
        if self.passing:
            z0, x0, whole = whole.split_with_sizes([self.passing, self.passing, sum(self.parts)], -1)
            mlp = F.silu(z0) * x0
        if self.in_scale is not None:
            whole = whole * self.in_scale.to(whole.dtype)
        z, mixed, raw = whole.split_with_sizes(self.parts, -1)
        return mixed, Side(z, raw, mlp)

    def drive(self, inner: Channels, side: Side, dt: Tensor | None) -> Mixed:
        """The convolved channels as they are, and the step size, which the decay is made from."""
        wide = torch.promote_types(self.dt_bias.dtype, torch.float32)
        sizes = F.softplus(side.raw.to(wide) + self.dt_bias.to(wide)).clamp(self.dt_low, self.dt_high)
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
        return (S * C).sum(-1) + self._skip().to(dt.dtype) * x, S

    def write_(self, inner: Channels, side: Side, dt: Tensor | None, S: Tensor) -> Tensor:
        """The rule for one token in place, the step size made inside."""
        head_dim, n = self.matrix
        x, B, C = inner.split_with_sizes([self.heads * head_dim, self.groups * n, self.groups * n], -1)
        grouped = (-1, self.groups, n)
        raw = side.raw if dt is None else self.drive(inner, side, dt).dt
        x = x.view(-1, self.heads, head_dim)
        y = ssd_update(
            x,
            raw,
            self._memo.get(self, self._rates),
            B.view(grouped),
            C.view(grouped),
            None if self.D_per_channel else self.D,
            self.dt_bias if dt is None else None,
            S,
            softplus=dt is None,
            low=self.dt_low if dt is None else -math.inf,
            high=math.inf if dt is not None or self.dt_high is None else self.dt_high,
        )
        return y + (self._skip() * x).to(y.dtype) if self.D_per_channel else y

    def scan(self, drive: Mixed, S: Tensor | None, resets: Resets | None) -> tuple[Tensor, Tensor]:
        """The same by state space duality."""
        if self.init_states is not None and S is None:
            S = self.init_states.expand(drive.dt.shape[0], -1, -1, -1)
        y, last = ssd_packed(
            drive.xBC,
            drive.dt,
            self._rates(),
            None if self.D_per_channel else self.D,
            S,
            resets,
            groups=self.groups,
            d_state=self.matrix[1],
            chunk=self.chunk,
        )
        if self.init_states is not None and resets is not None:
            more, left = self._after_resets(drive, resets)
            y, last = (y + more).to(y.dtype), last + left
        if self.D_per_channel:
            x = drive.xBC[..., : self.D.numel()].unflatten(-1, (self.heads, -1))
            y = (y + self._skip() * x).to(y.dtype)
        return y, last

    def _after_resets(self, drive: Mixed, resets: Resets) -> tuple[Tensor, Tensor]:
        """What the learned state adds to outputs and last matrices after resets, which the op starts at zero.

        A reset to h_0 leaves w_t h_0 of it, with w_t the product of decays since: one number a head, so that
        outputs take w_t h_0 C_t. Before the first reset w is zero.
        """
        decay = torch.exp(drive.dt * self._rates())
        w, last = linear_scan(decay, torch.where(resets[..., None], decay, 0.0), None, resets)
        first = self.init_states.to(w.dtype)  # type: ignore[union-attr]
        n = self.matrix[1]
        C = drive.xBC[..., -self.groups * n :].to(w.dtype).unflatten(-1, (self.groups, n))
        with torch.autocast(C.device.type, enabled=False):
            read = torch.einsum("btgn,grpn->btgrp", C, first.unflatten(0, (self.groups, -1)))
        return read.flatten(2, 3) * w[..., None], last[..., None, None] * first

    def readout(self, y: Tensor, side: Side) -> Channels:
        """The gate and the grouped norm, what passes by, then a linear map."""
        y = y.flatten(-2)
        y = y * F.silu(side.z) if self.norm is None else self.norm(y, side.z)
        return self.out_proj(y if side.mlp is None else torch.cat([side.mlp, y], -1))

    def _skip(self) -> Tensor:
        """D as it multiplies x (..., h, p)."""
        return self.D.view(self.heads, -1)

    def hidden_attention(self, x: Sequence, resets: Resets | None = None) -> Float[Tensor, "b h t t"]:
        """That of each head, C_i . B_j exp(sum of dt A from j + 1 to i) dt_j, without a first state."""
        self.check_call(x, None, resets)
        drive, (b, t, _) = self._driven(x, resets), x.shape
        B, C = (
            drive.xBC[..., self.parts[0] :].unflatten(-1, (2, self.groups, -1)).to(drive.dt.dtype).unbind(2)
        )
        unit = torch.eye(t, dtype=B.dtype, device=x.device)[None, :, None].expand(b, t, self.heads, t)
        read, _ = ssd(unit.contiguous(), drive.dt, self._rates(), B, C, resets=resets, chunk=self.chunk)
        return read.transpose(1, 2)

    def log_decays(self, x: Sequence) -> Float[Tensor, "b t h"]:
        """dt A of each head."""
        self.check_call(x, None)
        return self._driven(x, None).dt * self._rates()

    def parameter_groups(self) -> list[ParameterGroup]:
        """A and the step sizes, which set time scales, at 1e-3 at most; no decay for them, D, a first state.

        Decay would pull every rate towards 1 and every step size towards softplus(0): no prior worth having.
        """
        free = [self.D, *([] if self.init_states is None else [self.init_states])]
        return [
            ParameterGroup([self.A_log, self.dt_bias], max_lr=1e-3, decay=False),
            ParameterGroup(free, decay=False),
        ]

    def _rates(self) -> Tensor:
        return -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))

    @classmethod
    def example(cls) -> "Mamba2":
        """A small instance."""
        return cls(8, d_state=4, head_dim=4, groups=2, chunk=4)
