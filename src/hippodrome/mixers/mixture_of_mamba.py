"""Mixture-of-Mamba: Mamba with projections chosen by the modality of the token, and one state for all."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hippodrome.layers.modal_projection import ModalProjection, ModalSteps
from hippodrome.layers.short_conv import ShortConv
from hippodrome.mixers._selective import log_decays, unrolled
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.ops.selective_scan import selective_scan
from hippodrome.ops.selective_scan_update import selective_scan_update
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """What the mixer carries from token to token; e = expand * d channels, one state for all modalities."""

    window: Float[Tensor, "b w_1 e"]
    """Last inputs of the short convolution, oldest first."""
    h: Float[Tensor, "b e n"]
    """The state of the recurrence, in float32 or wider."""


class MixtureOfMamba(Mixer):
    """Mamba with a copy of in_proj, x_proj, dt_proj and out_proj for each modality m of a token:
    [x | z] = W_in^m u; x = silu(conv(x)); [r | B | C] = W_x^m x; dt = softplus(W_dt^m r + b_dt^m);
    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t; y_t = C_t h_t + D x_t; W_out^m (y silu(z)).

    Liang et al. 2025, "Mixture-of-Mamba: enhancing multi-modal state-space models with modality-aware
    sparsity", arXiv 2501.16295; the recurrence is that of Gu, Dao 2023, arXiv 2312.00752, equations 2a and
    2b. The convolution, A, D and the state are shared, so modalities mix in the order of the sequence. A
    token costs what it costs in Mamba, whatever the number of modalities. Each of the four may be left shared
    (``split_*``); with all shared, or copies that are equal, this is Mamba.

    ``modality`` (b, t) says which each token is of; without it all are of the first.

    Args:
        d_model: d, channels in and out.
        modalities: how many copies.
        split_in: whether in_proj has copies.
        split_x: whether x_proj has.
        split_dt: whether dt_proj has, with its bias.
        split_out: whether out_proj has.
        d_state: n, size of each channel's state.
        taps: of the short convolution.
        expand: channels of the recurrence as a multiple of d_model.
        dt_rank: rank of the map to the step sizes; None takes d / 16, rounded up.
        dt_min: smallest step size at the start.
        dt_max: largest step size at the start; between them they are log-uniform.
        dt_floor: bound below the first step sizes.

    Raises:
        ValueError: no modality.
    """

    accepts_dt = True
    accepts_modality = True
    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        modalities: int = 2,
        split_in: bool = True,
        split_x: bool = True,
        split_dt: bool = True,
        split_out: bool = True,
        d_state: int = 16,
        taps: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_floor: float = 1e-4,
    ) -> None:
        super().__init__()
        if modalities < 1:
            raise ValueError(
                f"Mixture-of-Mamba tells one modality or more apart; got {modalities}. Take 1 or more."
            )
        inner = expand * d_model
        rank = -(-d_model // 16) if dt_rank is None else dt_rank
        self.d_model, self.d_state, self.dt_rank, self.modalities = d_model, d_state, rank, modalities

        def copies(split: bool) -> int:
            return modalities if split else 1

        self.in_proj = ModalProjection(d_model, 2 * inner, copies(split_in))
        self.conv1d = ShortConv(inner, taps, silu=True)
        self.x_proj = ModalProjection(inner, rank + 2 * d_state, copies(split_x))
        self.dt_proj = ModalSteps(rank, inner, copies(split_dt), dt_min, dt_max, dt_floor)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, d_state + 1)).repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = ModalProjection(inner, d_model, copies(split_out))

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        window = self.conv1d.init_window(batch)
        return State(window, window.new_zeros(batch, *self.A_log.shape))

    def step(
        self,
        x_t: Token,
        state: State,
        *,
        dt_t: Tensor | None = None,
        modality_t: Int[Tensor, "b"] | None = None,
    ) -> tuple[Token, State]:
        """One token: Mamba's recurrence with the maps of the token's modality."""
        x, z = self.in_proj(x_t, modality_t).chunk(2, -1)
        x, window = self.conv1d.step(x, state.window)
        raw, B, C = self._drive(x, modality_t)
        dt = F.softplus(raw) if dt_t is None else F.softplus(raw) * dt_t[..., None].to(raw.dtype)
        h = torch.exp(dt[..., None] * self._rates()) * state.h
        h = torch.addcmul(h, (dt * x)[..., None], B[:, None].to(dt.dtype))
        y = (h * C[:, None]).sum(-1) + self.D.to(dt.dtype) * x
        return self.out_proj(y.to(x.dtype) * F.silu(z), modality_t), State(window, h)

    def advance_(
        self,
        x_t: Token,
        state: State,
        *,
        dt_t: Tensor | None = None,
        modality_t: Int[Tensor, "b"] | None = None,
    ) -> Token:
        """One token, overwriting a state that its caller owns."""
        if torch.is_grad_enabled():
            y_t, after = self.step(x_t, state, dt_t=dt_t, modality_t=modality_t)
            for old, new in zip(state, after, strict=True):
                old.copy_(new)
            return y_t
        x, z = self.in_proj(x_t, modality_t).chunk(2, -1)
        x = self.conv1d.advance_(x, state.window)
        raw, B, C = self._drive(x, modality_t)
        if dt_t is not None:
            raw = F.softplus(raw) * dt_t[..., None].to(raw.dtype)
        y = selective_scan_update(
            x, raw, self._rates(), B, C, self.D, z, None, state.h, softplus=dt_t is None
        )
        return self.out_proj(y, modality_t)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
        modality: Tensor | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: each modality's through its own products, all through one selective scan."""
        self.check_call(x, state, resets, dt)
        self.check_modality(x, modality)
        window, h = (None, None) if state is None else state
        x, z = self.in_proj(x, modality).chunk(2, -1)
        x, window = self.conv1d(x, window, resets)
        raw, B, C = self._drive(x, modality)
        if dt is not None:
            raw = F.softplus(raw) * dt[..., None].to(raw.dtype)
        y, h = selective_scan(x, raw, self._rates(), B, C, self.D, z, None, h, resets, softplus=dt is None)
        return self.out_proj(y, modality), State(window, h)

    def hidden_attention(
        self, x: Sequence, resets: Resets | None = None, modality: Tensor | None = None
    ) -> Float[Tensor, "b e t t"]:
        """That of each channel."""
        self.check_call(x, None, resets)
        inner = self.conv1d(self.in_proj(x, modality).chunk(2, -1)[0], None, resets)[0]
        raw, B, C = self._drive(inner, modality)
        return unrolled(F.softplus(raw), self._rates(), B, C, resets)

    def log_decays(self, x: Sequence, modality: Tensor | None = None) -> Float[Tensor, "b t c"]:
        """Those of each channel and state."""
        self.check_call(x, None)
        inner = self.conv1d(self.in_proj(x, modality).chunk(2, -1)[0], None, None)[0]
        raw = self._drive(inner, modality)[0]
        return log_decays(F.softplus(raw), self._rates())

    def parameter_groups(self) -> list[ParameterGroup]:
        """A and the step sizes, which set time scales, at 1e-3 at most; they and D without decay."""
        biases = [one.bias for one in self.dt_proj]
        return [
            ParameterGroup([self.A_log, *biases], max_lr=1e-3, decay=False),  # type: ignore[list-item]
            ParameterGroup([self.D], decay=False),
        ]

    def _drive(self, x: Tensor, modality: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Raw step sizes with their bias, in float32 or wider, and B and C."""
        low, B, C = self.x_proj(x, modality).split([self.dt_rank, self.d_state, self.d_state], -1)
        return self.dt_proj(low, modality), B, C

    def _rates(self) -> Tensor:
        return -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))

    @classmethod
    def example(cls) -> "MixtureOfMamba":
        """A small instance of two modalities."""
        return cls(8, d_state=4)
