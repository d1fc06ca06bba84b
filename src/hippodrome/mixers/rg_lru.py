"""RG-LRU: the real gated linear recurrent unit of Griffin and Hawk, inside their recurrent block."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hippodrome.layers.block_projection import BlockProjection
from hippodrome.layers.heads import check_divides
from hippodrome.layers.mlp import Activation, activation_function
from hippodrome.layers.projection import Projection
from hippodrome.layers.short_conv import ShortConv
from hippodrome.mixers._diagonal_recurrence import Channels, DiagonalRecurrence
from hippodrome.mixers.base import ParameterGroup
from hippodrome.ops.linear_scan import linear_scan
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

SHARPNESS = 8.0
"""The paper's c: how far an open recurrence gate can push the decay."""


class BegunState(NamedTuple):
    """What a recurrence carries that treats the first token apart."""

    window: Float[Tensor, "b w_1 e"]
    """Last inputs of the short convolution, oldest first."""
    h: Float[Tensor, "b n"]
    """The state of the recurrence, in float32 or wider."""
    begun: Bool[Tensor, "b"]
    """Whether there was a token since the last reset."""


class RGLRU(DiagonalRecurrence):
    """r = sigmoid(W_a x + b_a), i = sigmoid(W_x x + b_x), a_t = sigmoid(Lambda)^(8 r_t dt_t),
    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t).

    De et al. 2024, "Griffin: mixing gated linear recurrences with local attention for efficient language
    models", arXiv 2402.19427, equations 1 to 4, with log a_t as in equation 6 and the recurrent block of
    figure 2c: one branch through a short convolution and this unit, times gelu of the other, then a linear
    map. With dt, which the paper has not (dt = 1), the state is an exactly sampled process of the same
    stationary size, since the decay over dt is a power and the input keeps a_t^2 + (1 - a_t^2) = 1.

    Args:
        d_model: channels in and out.
        d_recurrent: channels of the recurrence; None takes d_model.
        taps: of the short convolution.
        gate_blocks: equal runs of channels whose gates see that run alone, as in the published models
            (section 2.4 there); None for gates that see all channels.
        activation: of the other branch.
        bias: whether the maps in and out have biases.
        whole_first: whether the first token, and that after each reset, enters as i_t x_t, without the root,
            as the authors' code has it.

    Raises:
        ValueError: gate_blocks does not divide the channels of the recurrence, or an unknown activation.
    """

    accepts_dt = True

    def __init__(
        self,
        d_model: int,
        d_recurrent: int | None = None,
        taps: int = 4,
        gate_blocks: int | None = None,
        activation: Activation = "gelu",
        bias: bool = False,
        whole_first: bool = False,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.d_state = n = d_model if d_recurrent is None else d_recurrent
        self.function = activation_function(activation)
        self.whole_first = whole_first
        self.in_proj = Projection(d_model, 2 * n, bias=bias)
        self.conv = ShortConv(n, taps)
        self.gate_blocks = gate_blocks
        self.gates: Projection | BlockProjection
        if gate_blocks is None:
            self.gates = Projection(n, 2 * n)
        else:
            check_divides("gate_blocks", gate_blocks, "the channels of the recurrence", n)
            self.gates = BlockProjection(gate_blocks, n // gate_blocks, 2 * n // gate_blocks)
        # sigmoid(Lambda)^8 starts uniform between 0.9 and 0.999 (section 2.4); inverted in float64.
        log_a = torch.log(0.9 + 0.099 * torch.rand(self.d_state, dtype=torch.float64)) / SHARPNESS
        start = log_a - torch.log(-torch.expm1(log_a))
        self.Lambda = nn.Parameter(start.to(torch.get_default_dtype()))
        self.out_proj = Projection(n, d_model, bias=bias)

    def project(self, x: Channels) -> tuple[Channels, Channels]:
        """The branch of the recurrence and the branch of the gate."""
        inner, gate = self.in_proj(x).chunk(2, -1)
        return inner, gate

    def drive(
        self, inner: Channels, dt: Tensor | None, first: Tensor | None = None
    ) -> tuple[Channels, Channels]:
        """Decays and normalized inputs, through log a_t, which stays exact where a_t is close to 1.

        Where a token is the ``first``, its input is not normalized.
        """
        wide = torch.promote_types(inner.dtype, torch.float32)
        recurrence, entry = torch.sigmoid(self.gates(inner).to(wide)).chunk(2, -1)
        if self.gate_blocks is not None:
            recurrence, entry = recurrence.flatten(-2), entry.flatten(-2)
        log_a = SHARPNESS * recurrence * F.logsigmoid(self.Lambda.to(wide))
        if dt is not None:
            log_a = log_a * dt[..., None].to(wide)
        # The bound keeps the root's slope finite where a gate is shut and a_t rounds to 1.
        size = torch.sqrt((-torch.expm1(2 * log_a)).clamp(min=1e-12))
        if first is not None:
            size = torch.where(first[..., None], 1.0, size)
        return torch.exp(log_a), size * entry * inner.to(wide)

    def readout(self, h: Channels, side: Channels) -> Channels:
        """The state times gelu of the other branch, through a linear map."""
        return self.out_proj(h * self.function(side))

    def init_state(self, batch: int, max_length: int | None = None) -> Any:
        """Zeros, and where the first token is apart, that there was none."""
        state = super().init_state(batch, max_length)
        if not self.whole_first:
            return state
        return BegunState(*state, torch.zeros(batch, dtype=torch.bool, device=state.h.device))

    def step(self, x_t: Token, state: Any, *, dt_t: Tensor | None = None) -> tuple[Token, Any]:
        """One token: convolution, recurrence, readout."""
        if not self.whole_first:
            return super().step(x_t, state, dt_t=dt_t)
        inner, side = self.project(x_t)
        inner, window = self.conv.step(inner, state.window)
        a_t, u_t = self.drive(inner, dt_t, ~state.begun)
        h = a_t * state.h + u_t
        return self.readout(h.to(inner.dtype), side), BegunState(window, h, torch.ones_like(state.begun))

    def advance_(self, x_t: Token, state: Any, *, dt_t: Tensor | None = None) -> Token:
        """One token, overwriting a state that its caller owns."""
        if not self.whole_first or torch.is_grad_enabled():
            return super().advance_(x_t, state, dt_t=dt_t)
        inner, side = self.project(x_t)
        inner = self.conv.advance_(inner, state.window)
        a_t, u_t = self.drive(inner, dt_t, ~state.begun)
        state.begun.fill_(True)
        return self.readout(state.h.mul_(a_t).add_(u_t).to(inner.dtype), side)

    def forward(
        self,
        x: Sequence,
        state: Any = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, Any]:
        """Many tokens, the recurrence by a parallel scan."""
        if not self.whole_first:
            return super().forward(x, state, resets=resets, dt=dt)
        self.check_call(x, state, resets, dt)
        window, h, begun = (None, None, None) if state is None else state
        fresh = torch.ones(len(x), dtype=torch.bool, device=x.device) if begun is None else ~begun
        first = torch.zeros_like(x[..., 0], dtype=torch.bool) if resets is None else resets.clone()
        first[:, 0] |= fresh
        inner, side = self.project(x)
        inner, window = self.conv(inner, window, resets)
        a, u = self.drive(inner, dt, first)
        states, last = linear_scan(a, u, h, resets)
        return self.readout(states.to(inner.dtype), side), BegunState(window, last, torch.ones_like(fresh))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Lambda sets time scales: 1e-3 at most, and no decay, which pulls every memory to one length."""
        return [ParameterGroup([self.Lambda], max_lr=1e-3, decay=False)]

    @classmethod
    def example(cls) -> "RGLRU":
        """A small instance."""
        return cls(8)
