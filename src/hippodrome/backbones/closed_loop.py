"""A closed loop: a stack that encodes, then a companion system that runs on by predicting its own input."""

from collections.abc import Callable
from math import comb
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones.stack import Stack
from hippodrome.mixers.base import ParameterGroup
from hippodrome.mixers.space_time import SpaceTime, SpaceTimeState
from hippodrome.ops.fft_conv import fft_conv
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

ORDERS, SHORTEST = 4, 4
"""Differences of orders 0 to 3 in turn with as many residuals; the shortest window of a moving average."""


class State(NamedTuple):
    """What encoder and decoder carry, and the inputs that the next differences need, (b, taps - 1, d)."""

    encoder: tuple
    decoder: SpaceTimeState
    window: Float[Tensor, "b lags d"]


class Trace(NamedTuple):
    """A run from rest with what training wants to see of it, each (b, t, d).

    ``predicted[:, i]`` is what the decoder took ``inputs[:, i + 1]`` to be.
    """

    outputs: Tensor
    inputs: Tensor
    predicted: Tensor
    state: State


class ClosedLoop(nn.Module):
    """decoder(encoder(differences(x))), and ``closed_loop``: the decoder run on beyond the last input.

    The forecaster of Zhang, Saab, Poli, Dao, Goel, Ré 2023, arXiv 2303.09489, section 3. Its first encoder
    block begins with fixed filters, ``differencing``: in turn over the channels differences of orders 0 to 3
    (with binomials of alternating sign) and four residuals of moving averages, x less the mean of a window
    whose length is drawn once. The published blocks have no norm; here those of the encoder are this house's,
    with a norm inside each residual branch and none on the way through.

    Args:
        decoder: a companion system with feedback.
        encoder: what comes before it, without a norm at its end; None for the decoder alone.
        differencing: whether the fixed filters come first.
        max_window: longest moving average.

    Raises:
        ValueError: a decoder without feedback, an encoder of another width or one that reads later tokens.
    """

    kernels: Tensor

    def __init__(
        self,
        decoder: SpaceTime,
        encoder: Stack | None = None,
        differencing: bool = False,
        max_window: int = 64,
    ) -> None:
        super().__init__()
        if decoder.k is None:
            raise ValueError("A closed loop's decoder predicts its input; build it with feedback=True.")
        if encoder is not None and not (encoder.causal and encoder.d_model == decoder.d_model):
            raise ValueError(
                f"A closed loop's encoder reads time in order, at its decoder's width {decoder.d_model}; got "
                f"width {encoder.d_model} and causal={encoder.causal}. Choose another stack."
            )
        if max_window < SHORTEST:
            raise ValueError(f"A moving average has {SHORTEST} steps or more; got max_window={max_window}.")
        self.d_model = decoder.d_model
        self.causal = True
        self.accepts_resets = encoder is None or encoder.accepts_resets
        self.decoder, self.encoder, self.differencing = decoder, encoder, differencing
        taps = max_window if differencing else 1
        self.register_buffer("kernels", _kernels(self.d_model, taps) if differencing else torch.zeros(0, 1))

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Before the first token."""
        decoder = self.decoder.init_state(batch)
        encoder = () if self.encoder is None else self.encoder.init_state(batch, max_length)
        return State(encoder, decoder, decoder.x.new_zeros(batch, self.kernels.shape[1] - 1, self.d_model))

    def reset_rows(self, state: State, rows: Tensor) -> State:
        """The state with the marked rows (b,) as before the first token."""
        return State(
            () if self.encoder is None else self.encoder.reset_rows(state.encoder, rows),
            SpaceTimeState(*self.decoder.reset_rows(state.decoder, rows)),
            torch.where(rows[:, None, None], 0.0, state.window),
        )

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: (b, t, d) to the decoder's outputs (b, t, d) and the states after them."""
        z, encoder, window = self._encode(x, state, resets, dt)
        y, decoder = self.decoder(z, None if state is None else state.decoder, resets=resets, dt=dt)
        return y, State(encoder, decoder, window)

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: (b, d) to (b, d) and the next states."""
        window, encoder = state.window, ()
        if self.differencing:
            x, window = self._filter(x_t[:, None], window, None)
            x_t = x[:, 0]
        if self.encoder is not None:
            x_t, encoder = self.encoder.step(x_t, state.encoder, dt_t=dt_t)
        y_t, decoder = self.decoder.step(x_t, state.decoder, dt_t=dt_t)
        return y_t, State(encoder, decoder, window)

    def advance_(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> Token:
        """One token, overwriting the states, which the caller owns."""
        window = state.window
        if self.differencing:
            y, window = self._filter(x_t[:, None], window, None)
            x_t = y[:, 0]
            state.window.copy_(window)
        if self.encoder is not None:
            x_t = self.encoder.advance_(x_t, state.encoder, dt_t=dt_t)
        return self.decoder.advance_(x_t, state.decoder, dt_t=dt_t)

    def trace(self, x: Sequence) -> Trace:
        """``forward`` from rest, with the decoder's inputs and what it predicted of them."""
        z, encoder, window = self._encode(x, None, None, None)
        y, decoder = self.decoder(z)
        return Trace(y, z, self.decoder.next_inputs(z), State(encoder, decoder, window))

    def closed_loop(self, state: State, horizon: int) -> tuple[Sequence, Sequence]:
        """The decoder's outputs and predicted inputs (b, horizon, d) after the state, with no input."""
        return self.decoder.closed_loop(state.decoder, horizon)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of all mixers inside."""
        inner = [] if self.encoder is None else self.encoder.parameter_groups()
        return [*inner, *self.decoder.parameter_groups()]

    def _encode(
        self, x: Tensor, state: State | None, resets: Tensor | None, dt: Tensor | None
    ) -> tuple[Tensor, tuple, Tensor]:
        """The decoder's inputs, the encoder's state, and the window."""
        if state is None:
            window = x.new_zeros(x.shape[0], self.kernels.shape[1] - 1, x.shape[2])
        else:
            window = state.window
        if self.differencing:
            x, window = self._filter(x, window, resets)
        if self.encoder is None:
            return x, (), window
        z, encoder = self.encoder(x, None if state is None else state.encoder, resets=resets, dt=dt)
        return z, encoder, window

    def _filter(self, x: Tensor, window: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        """The fixed filters, with the inputs before x in ``window``; nothing passes a reset."""
        wide = torch.promote_types(x.dtype, torch.float32)
        whole, taps = torch.cat([window.to(wide), x.to(wide)], 1), self.kernels.to(wide)
        before, t = window.shape[1], x.shape[1]
        if resets is None:
            y = fft_conv(whole, taps)[:, before:] if t > 1 else (whole * taps.flip(1).T).sum(1, keepdim=True)
        else:
            marks = torch.cat([resets.new_zeros(x.shape[0], before), resets], 1)
            piece = marks.cumsum(1)
            y = torch.zeros_like(whole[:, before:])
            for lag in range(taps.shape[1]):
                late = slice(before - lag, before + t - lag)
                own = (piece[:, before:] == piece[:, late])[..., None]
                y = y + torch.where(own, whole[:, late], 0) * taps[:, lag]
            whole = torch.where((piece == piece[:, -1:])[..., None], whole, 0)
        return y.to(x.dtype), whole[:, whole.shape[1] - before :]

    @classmethod
    def example(cls) -> "ClosedLoop":
        """A small instance."""
        encoder = Stack.example()
        encoder.norm = nn.Identity()
        return cls(SpaceTime(8, 5, feedback=True, linear=False), encoder, True, 6)


def _kernels(d_model: int, longest: int) -> Tensor:
    """(d, longest): differences of orders 0 to 3, then four residuals, over and over."""
    kernels = torch.zeros(d_model, longest)
    lengths = torch.randint(SHORTEST, longest + 1, (d_model,), device="cpu").tolist()
    for i in range(d_model):
        order = i % (2 * ORDERS)
        if order < ORDERS:
            for j in range(order + 1):
                kernels[i, j] = (-1) ** j * comb(order, j)
        else:
            kernels[i, 0] = 1.0
            kernels[i, : lengths[i]] -= 1.0 / lengths[i]
    return kernels


def spec(
    stacks: list[Callable[[int, int | None], dict[str, Any]]],
    d_model: int,
    depth: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The spec after a pattern ``closed_loop:ENCODER``; of ``depth`` layers the decoder is the last.

    ``options``: ``differencing`` and ``max_window``, and of the decoder ``kernel_dim``, ``n_kernels`` and
    ``normalize``. At a depth of one there is no encoder.

    Raises:
        ValueError: more than one pattern.
    """
    if len(stacks) != 1:
        raise ValueError(f"closed_loop takes one pattern, of its encoder; got {len(stacks)}.")
    given = dict(options)
    own: dict[str, Any] = {name: given.pop(name) for name in ("differencing", "max_window") if name in given}
    decoder = {"kind": "space_time", "d_model": d_model, "feedback": True, "linear": False, **given}
    if depth == 1:
        return {"decoder": decoder, **own}
    encoder = stacks[0](d_model, None if depth is None else depth - 1)
    return {"decoder": decoder, "encoder": {**encoder, "norm": False}, **own}
