"""The matrix state engine: each head keeps a matrix, decays it, writes an outer product, reads by a query."""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.layers.short_conv import NoConv, ShortConv
from hippodrome.mixers.base import Mixer
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

EPS = 1e-6
"""Added to the squared length of a query or key before its root is taken."""
NO_GATE = "DeltaNet's state does not decay, it is replaced; only a gated one has decays."
"""Why the delta rule without a gate has no decays to show."""

Channels = Float[Tensor, "*tokens _"]
"""Channels of any number of tokens: (b, t, e) in ``forward``, (b, e) in ``step``."""


class State(NamedTuple):
    """What a matrix state mixer carries from token to token."""

    window: Float[Tensor, "b w_1 e"]
    """Last inputs of the short convolution, oldest first; none (w_1 = 0) where there is no convolution."""
    S: Float[Tensor, "b h _ _"]
    """The matrix of each head, in float32 or wider."""


class Drive(NamedTuple):
    """What one token does to the matrices, for any number of tokens (the leading axes)."""

    q: Float[Tensor, "*tokens g k"]
    """Queries, which read."""
    k: Float[Tensor, "*tokens g k"]
    """Keys: where to write."""
    v: Float[Tensor, "*tokens h v"]
    """Values: what to write."""
    decay: Tensor
    """What the rule decays by, (..., h) or (..., h, k): step sizes or logarithms, in float32 or wider."""


class MatrixState(Mixer):
    """y = readout(S q): S decays, then takes in an outer product of key and value.

    A member sets ``heads``, the two sizes of ``matrix`` and ``conv``. It supplies maps that act on each token
    alone (``project`` before the convolution, ``drive`` to queries, keys, values and decays, ``readout``
    behind) and its write rule twice: for one token (``write``) and for many (``scan``, an op).
    """

    heads: int
    matrix: tuple[int, int]
    conv: ShortConv | NoConv

    @abstractmethod
    def project(self, x: Channels) -> tuple[Channels, Any]:
        """From the layer's input: what the convolution takes, and what is set aside."""

    @abstractmethod
    def drive(self, inner: Channels, side: Any, dt: Float[Tensor, "*tokens"] | None) -> Any:
        """Queries, keys, values and decays from the convolved channels and what was set aside.

        A ``Drive``, or whatever else the member's ``write`` and ``scan`` take.
        """

    @abstractmethod
    def write(self, drive: Any, S: Tensor) -> tuple[Tensor, Tensor]:
        """The rule: what one token (b, h, ...) reads (b, h, v), and the matrices after it."""

    @abstractmethod
    def scan(self, drive: Any, S: Tensor | None, resets: Resets | None) -> tuple[Tensor, Tensor]:
        """The rule over many tokens (b, t, h, ...): all that is read (b, t, h, v), and the last matrices."""

    def write_(self, inner: Channels, side: Any, dt: Tensor | None, S: Tensor) -> Tensor:
        """The rule for one token, overwriting the matrices: what it reads (b, h, v). No gradients."""
        y, after = self.write(self.drive(inner, side, dt), S)
        S.copy_(after)
        return y.to(inner.dtype)

    @abstractmethod
    def readout(self, y: Float[Tensor, "*tokens h v"], side: Any) -> Channels:
        """The layer's output from what was read and what was set aside."""

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        window = self.conv.init_window(batch)
        return State(window, window.new_zeros(batch, self.heads, *self.matrix))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: convolution, write, read, readout."""
        self.refuse_dt(dt_t)
        inner, side = self.project(x_t)
        inner, window = self.conv.step(inner, state.window)
        y, S = self.write(self.drive(inner, side, dt_t), state.S)
        return self.readout(y.to(inner.dtype), side), State(window, S)

    def advance_(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> Token:
        """One token, overwriting a state that its caller owns."""
        if torch.is_grad_enabled():
            return super().advance_(x_t, state, dt_t=dt_t)
        self.refuse_dt(dt_t)
        inner, side = self.project(x_t)
        inner = self.conv.advance_(inner, state.window)
        return self.readout(self.write_(inner, side, dt_t, state.S), side)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens, the write rule by its op."""
        self.check_call(x, state, resets, dt)
        window, S = (None, None) if state is None else state
        inner, side = self.project(x)
        inner, window = self.conv(inner, window, resets)
        y, S = self.scan(self.drive(inner, side, dt), S, resets)
        return self.readout(y, side), State(window, S)

    def with_values(self, drive: Any, v: Float[Tensor, "b t h _"]) -> Any:
        """What ``drive`` gave with other values, of any size: all else that the rule takes stays."""
        return drive._replace(v=v)

    def hidden_attention(self, x: Sequence, resets: Resets | None = None) -> Float[Tensor, "b h t t"]:
        """What the rule reads where the value of token j is the j-th unit vector: row i of each head."""
        self.check_call(x, None, resets)
        drive = self._driven(x, resets)
        (b, t, _), like = x.shape, torch.promote_types(x.dtype, torch.float32)
        unit = torch.eye(t, dtype=like, device=x.device)[None, :, None].expand(b, t, self.heads, t)
        return self.scan(self.with_values(drive, unit.contiguous()), None, resets)[0].transpose(1, 2)

    def log_decays(self, x: Sequence) -> Float[Tensor, "b t c"]:
        """Those of each head, or of each key channel of each head."""
        self.check_call(x, None)
        return self._driven(x, None).decay.flatten(2)

    def _driven(self, x: Sequence, resets: Resets | None) -> Any:
        inner, side = self.project(x)
        return self.drive(self.conv(inner, None, resets)[0], side, None)


def of_length_one(x: Float[Tensor, "*tokens k"]) -> Float[Tensor, "*tokens k"]:
    """Queries or keys over their length, which is taken in float32 at least."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * torch.rsqrt((wide * wide).sum(-1, keepdim=True) + EPS)).to(x.dtype)


def retention_rates(heads: int, like: Tensor) -> Float[Tensor, "h"]:
    """log gamma_h, gamma_h = 1 - 2^(-5-h) (Sun et al. 2023, arXiv 2307.08621, equation 8), as ``like`` is."""
    return torch.log1p(-torch.exp2(-5 - torch.arange(heads, dtype=like.dtype, device=like.device)))
