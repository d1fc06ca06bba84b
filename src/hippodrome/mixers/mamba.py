"""Mamba: a diagonal state space whose step sizes, inputs and readouts are chosen by the token."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.projection import Projection
from hippodrome.layers.short_conv import ShortConv
from hippodrome.layers.step_size import StepProjection
from hippodrome.mixers._memo import Memo
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.ops.selective_scan import selective_scan
from hippodrome.ops.selective_scan_update import selective_scan_update
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """What Mamba carries from token to token; e = expand * d channels."""

    window: Float[Tensor, "b w_1 e"]
    """Last inputs of the short convolution, oldest first."""
    h: Float[Tensor, "b e n"]
    """The state of the recurrence, in float32 or wider."""


class Mamba(Mixer):
    """[x | z] = in_proj(u); x = silu(conv(x)); [r | B | C] = x_proj(x); dt = softplus(dt_proj(r));
    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t with A = -exp(A_log); y_t = C_t h_t + D x_t; out_proj(y silu(z)).

    Gu, Dao 2023, "Mamba: linear-time sequence modeling with selective state spaces", arXiv 2312.00752,
    equations 2a and 2b, algorithm 2, figure 3. A is discretized by zero-order hold, B by Euler's rule.
    Parameters carry the names and shapes of the authors' checkpoints. ``dt`` multiplies the step size after
    softplus. A, D, step sizes and the state stay in float32 whatever autocast does.

    Args:
        d_model: d, channels in and out.
        d_state: n, size of each channel's state.
        taps: of the short convolution.
        expand: channels of the recurrence as a multiple of d_model.
        dt_rank: rank of the map to the step sizes; None takes d / 16, rounded up.
        dt_min: smallest step size at the start.
        dt_max: largest step size at the start; between them they are log-uniform.
        dt_floor: bound below the first step sizes.
    """

    accepts_dt = True
    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        taps: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_floor: float = 1e-4,
    ) -> None:
        super().__init__()
        inner = expand * d_model
        rank = -(-d_model // 16) if dt_rank is None else dt_rank
        self.d_model = d_model
        self.d_state = d_state
        self.dt_rank = rank
        self._memo: Memo[Tensor] = Memo()
        self.in_proj = Projection(d_model, 2 * inner, bias=False)
        self.conv1d = ShortConv(inner, taps, silu=True)
        self.x_proj = Projection(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = StepProjection(rank, inner, dt_min, dt_max, dt_floor)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, d_state + 1)).repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = Projection(inner, d_model, bias=False)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        window = self.conv1d.init_window(batch)
        return State(window, window.new_zeros(batch, *self.A_log.shape))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: the recurrence as the paper writes it."""
        x, z = self.in_proj(x_t).chunk(2, -1)
        x, window = self.conv1d.step(x, state.window)
        low, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], -1)
        dt = self._step_sizes(low, dt_t)
        h = torch.exp(dt[..., None] * self._rates()) * state.h
        h = torch.addcmul(h, (dt * x)[..., None], B[:, None].to(dt.dtype))
        y = (h * C[:, None]).sum(-1) + self.D.to(dt.dtype) * x
        return self.out_proj(y.to(x.dtype) * F.silu(z)), State(window, h)

    def advance_(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> Token:
        """One token, overwriting a state that its caller owns."""
        if torch.is_grad_enabled():
            return super().advance_(x_t, state, dt_t=dt_t)
        x, z = self.in_proj(x_t).chunk(2, -1)
        x = self.conv1d.advance_(x, state.window)
        low, B, C = self.x_proj(x).split_with_sizes([self.dt_rank, self.d_state, self.d_state], -1)
        rates = self._memo.get(self, self._rates)
        if dt_t is None:
            raw, bias = self.dt_proj(low), self.dt_proj.bias
            y = selective_scan_update(x, raw, rates, B, C, self.D, z, bias, state.h, softplus=True)
        else:
            sizes = self._step_sizes(low, dt_t)
            y = selective_scan_update(x, sizes, rates, B, C, self.D, z, None, state.h)
        return self.out_proj(y)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens, the recurrence by the selective scan with softplus, skip and gate inside it."""
        self.check_call(x, state, resets, dt)
        y, state = self.inner(self.in_proj(x), state, resets, dt)
        return self.out_proj(y), state

    def inner(
        self,
        xz: Float[Tensor, "b t _"],
        state: State | None = None,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Float[Tensor, "b t e"], State]:
        """What stands between the two projections: two directions may share those and not this.

        Args:
            xz: what ``in_proj`` gives, (b, t, 2 e).
            state: before the first token.
            resets: as in ``forward``.
            dt: as in ``forward``.
        """
        window, h = (None, None) if state is None else state
        x, z = xz.chunk(2, -1)
        x, window = self.conv1d(x, window, resets)
        low, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], -1)
        A = self._rates()
        if dt is None:
            raw, bias = self.dt_proj(low), self.dt_proj.bias
            y, h = selective_scan(x, raw, A, B, C, self.D, z, bias, h, resets, softplus=True)
        else:
            sizes = self._step_sizes(low, dt)
            y, h = selective_scan(x, sizes, A, B, C, self.D, z, None, h, resets)
        return y, State(window, h)

    def parameter_groups(self) -> list[ParameterGroup]:
        """A and the step sizes, which set time scales, at 1e-3 at most; they and D without decay.

        Decay would pull every rate towards 1 and every step size towards softplus(0): no prior worth having.
        """
        return [
            ParameterGroup([self.A_log, self.dt_proj.bias], max_lr=1e-3, decay=False),
            ParameterGroup([self.D], decay=False),
        ]

    def _rates(self) -> Tensor:
        return -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))

    def _step_sizes(self, low: Tensor, dt: Tensor | None) -> Tensor:
        wide = torch.promote_types(self.dt_proj.bias.dtype, torch.float32)
        sizes = F.softplus(self.dt_proj(low).to(wide) + self.dt_proj.bias.to(wide))
        return sizes if dt is None else sizes * dt[..., None].to(wide)

    @classmethod
    def example(cls) -> "Mamba":
        """A small instance."""
        return cls(8, d_state=4)
