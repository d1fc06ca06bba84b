"""Hyena: gates and long implicit convolutions in turn, in the place of attention."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.projection import Projection
from hippodrome.layers.short_conv import ShortConv
from hippodrome.mixers._implicit_filter import ImplicitFilter
from hippodrome.mixers._long_conv import convolve
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.ops.causal_conv_update import causal_conv_update
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """The inputs that the convolutions still reach."""

    short: Float[Tensor, "b w_1 c"]
    """The last inputs of the short convolution, oldest first."""
    long: Float[Tensor, "b o l_1 d"]
    """The last ``max_length - 1`` gated inputs of each long convolution, oldest first, float32 or wider."""


class Hyena(Mixer):
    """[x_0 ... x_{o-1} | v] = conv3(W x); for i = o-1 ... 1: v <- h_i * (x_i v) + b_i x_i v; W_o (x_0 v).

    Poli et al. 2023, "Hyena hierarchy: towards larger convolutional language models", arXiv 2302.10866,
    definition 3.1 and algorithm 3, with the order o. The h_i are long convolutions, ``*`` over time, with
    implicit filters of ``max_length`` taps (see ``_implicit_filter``); all else is elementwise. Order 2 has
    one of them.

    Inputs older than ``max_length`` tokens are not seen: a longer sequence runs, and the convolution's window
    ends there. ``step`` is the convolution itself over the last ``max_length - 1`` gated inputs, which are
    the state: exact, at O(max_length) work and memory a token. ``analyze.distill`` makes a recurrence of a
    fixed size of a learned filter and says by how much it errs.

    Args:
        d_model: channels in and out.
        order: of the hierarchy, at least 2; it has order - 1 long convolutions.
        max_length: taps of the long filters.
        width: units in a layer of the network that makes the filters.
        inner: layers of it between the first and the last, at least 1.
        features: of a position; odd, at least 3.
        frequency: of the network's sines at the start: the larger, the rougher the first filters.
        taps: of the short convolution.

    Raises:
        ValueError: an order below 2, or sizes that the filters cannot have.
    """

    def __init__(
        self,
        d_model: int,
        order: int = 2,
        max_length: int = 1024,
        width: int = 64,
        inner: int = 2,
        features: int = 5,
        frequency: float = 1.0,
        taps: int = 3,
    ) -> None:
        super().__init__()
        if order < 2:
            raise ValueError(
                f"Hyena of order 2 has one long convolution, and it needs at least that; got order={order}."
            )
        self.d_model = d_model
        self.order = order
        self.max_length = max_length
        self.in_proj = Projection(d_model, (order + 1) * d_model)
        self.conv = ShortConv((order + 1) * d_model, taps)
        self.filter = ImplicitFilter((order - 1) * d_model, max_length, width, inner, features, frequency)
        self.bias = nn.Parameter(torch.randn(order - 1, d_model))
        self.out_proj = Projection(d_model, d_model)

    def kernel(self, length: int) -> Float[Tensor, "o d length"]:
        """The first ``length`` <= ``max_length`` taps of each long convolution, without its bias.

        The first of them is the one that runs first, on x_{o-1} v.
        """
        # Dealt one after the other, so that each convolution has filters of all rates of fading.
        return self.filter(length).unflatten(0, (self.d_model, -1)).transpose(0, 1)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the windows have the length of the filters."""
        wide = torch.promote_types(self.bias.dtype, torch.float32)
        shape = (batch, self.order - 1, self.max_length - 1, self.d_model)
        return State(self.conv.init_window(batch), self.bias.new_zeros(shape, dtype=wide))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: each convolution is a sum over its window."""
        self.refuse_dt(dt_t)
        mixed, short = self.conv.step(self.in_proj(x_t), state.short)
        first, *gates, v = mixed.to(state.long.dtype).chunk(self.order + 1, -1)
        taps, bias = self.filter.windows(self.order - 1), self.bias.to(v.dtype)
        windows = []
        for i, gate in enumerate(reversed(gates)):
            inputs = torch.cat([state.long[:, i], (gate * v)[:, None]], 1)
            v = (inputs * taps[i].T).sum(1) + bias[i] * inputs[:, -1]
            windows.append(inputs[:, 1:])
        return self.out_proj((first * v).to(x_t.dtype)), State(short, torch.stack(windows, 1))

    def advance_(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> Token:
        """One token; each window of its caller moves on in the pass that sums it."""
        self.refuse_dt(dt_t)
        mixed = self.conv.advance_(self.in_proj(x_t), state.short)
        first, *gates, v = mixed.to(state.long.dtype).chunk(self.order + 1, -1)
        taps, bias = self.filter.windows(self.order - 1), self.bias.to(v.dtype)
        for i, gate in enumerate(reversed(gates)):
            u = gate * v
            v = causal_conv_update(u, taps[i], None, state.long[:, i]) + bias[i] * u
        return self.out_proj((first * v).to(x_t.dtype))

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens, by Fourier transforms; the state stands before them, a reset cuts a row in two."""
        self.check_call(x, state, resets, dt)
        mixed, short = self.conv(self.in_proj(x), None if state is None else state.short, resets)
        wide = torch.promote_types(self.bias.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            first, *gates, v = mixed.to(wide).chunk(self.order + 1, -1)
            kernels = self.kernel(self.max_length if state is not None else min(self.max_length, x.shape[1]))
            windows = []
            for i, gate in enumerate(reversed(gates)):
                # The bias belongs to lag zero: one pass less over the tokens.
                taps = torch.cat([kernels[i, :, :1] + self.bias[i, :, None].to(wide), kernels[i, :, 1:]], 1)
                window = None if state is None else state.long[:, i].to(wide)
                v, window = convolve(gate * v, taps, window, resets, self.max_length - 1)
                windows.append(window)
            y = first * v
        return self.out_proj(y.to(x.dtype)), State(short, torch.stack(windows, 1))

    def parameter_groups(self) -> list[ParameterGroup]:
        """The network of the filters: at most 1e-3, its features of positions at most 1e-5; no decay."""
        return self.filter.groups()

    @classmethod
    def example(cls) -> "Hyena":
        """A small instance."""
        return cls(6, order=3, max_length=12, width=8, features=3)
