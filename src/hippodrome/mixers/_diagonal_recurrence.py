"""The diagonal recurrence engine: h_t = a_t h_{t-1} + u_t in each channel, behind a short convolution."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.layers.short_conv import ShortConv
from hippodrome.mixers.base import Mixer
from hippodrome.ops.linear_scan import linear_scan
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

Channels = Float[Tensor, "*tokens _"]
"""Channels of any number of tokens: (b, t, _) in ``forward``, (b, _) in ``step``."""


class State(NamedTuple):
    """What a diagonal recurrence carries from token to token."""

    window: Float[Tensor, "b w_1 e"]
    """Last inputs of the short convolution, oldest first."""
    h: Float[Tensor, "b n"]
    """The state of the recurrence, in float32 or wider."""


class DiagonalRecurrence(Mixer):
    """y = readout(h), h_t = a_t h_{t-1} + u_t, with a_t and u_t functions of the convolved input.

    A member sets ``d_state`` and ``conv`` and supplies three maps that act on each token alone: ``project``
    before the convolution, ``drive`` to the decays and inputs, ``readout`` after the recurrence.
    """

    d_state: int
    conv: ShortConv

    @abstractmethod
    def project(self, x: Channels) -> tuple[Channels, Channels]:
        """From the layer's input: what the convolution takes, and what the readout is to be handed."""

    @abstractmethod
    def drive(self, inner: Channels, dt: Float[Tensor, "*tokens"] | None) -> tuple[Channels, Channels]:
        """The decays a and the inputs u of the recurrence, in float32 or wider."""

    @abstractmethod
    def readout(self, h: Channels, side: Channels) -> Channels:
        """The layer's output from the state and what ``project`` set aside."""

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        window = self.conv.init_window(batch)
        return State(window, window.new_zeros(batch, self.d_state))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: convolution, recurrence, readout."""
        self.refuse_dt(dt_t)
        inner, side = self.project(x_t)
        inner, window = self.conv.step(inner, state.window)
        a_t, u_t = self.drive(inner, dt_t)
        h = a_t * state.h + u_t
        return self.readout(h.to(inner.dtype), side), State(window, h)

    def advance_(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> Token:
        """One token, overwriting a state that its caller owns."""
        if torch.is_grad_enabled():
            return super().advance_(x_t, state, dt_t=dt_t)
        self.refuse_dt(dt_t)
        inner, side = self.project(x_t)
        inner = self.conv.advance_(inner, state.window)
        a_t, u_t = self.drive(inner, dt_t)
        h = state.h.mul_(a_t).add_(u_t)
        return self.readout(h.to(inner.dtype), side)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens, the recurrence by a parallel scan."""
        self.check_call(x, state, resets, dt)
        window, h = (None, None) if state is None else state
        inner, side = self.project(x)
        inner, window = self.conv(inner, window, resets)
        a, u = self.drive(inner, dt)
        states, last = linear_scan(a, u, h, resets)
        return self.readout(states.to(inner.dtype), side), State(window, last)

    def hidden_attention(self, x: Sequence, resets: Resets | None = None) -> Float[Tensor, "b n t t"]:
        """What is left at token i of an input of one at token j, in each channel."""
        self.check_call(x, None, resets)
        a = self.drive(self.conv(self.project(x)[0], None, resets)[0], None)[0]
        (b, t, n), marks = a.shape, None if resets is None else resets.repeat_interleave(resets.shape[1], 0)
        unit = torch.eye(t, dtype=a.dtype, device=a.device)[None, :, :, None].expand(b, t, t, n)
        h, _ = linear_scan(a.repeat_interleave(t, 0), unit.reshape(b * t, t, n), None, marks)
        return h.unflatten(0, (b, t)).permute(0, 3, 2, 1)

    def log_decays(self, x: Sequence) -> Float[Tensor, "b t n"]:
        """Those of each channel."""
        self.check_call(x, None)
        return self.drive(self.conv(self.project(x)[0], None, None)[0], None)[0].log()
