"""The long convolution engine: y_t = sum_l k_l x_{t-l} + D x_t with a kernel of bounded support."""

from abc import abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.mixers._memo import Memo
from hippodrome.mixers.base import Mixer
from hippodrome.ops.block_conv import block_conv
from hippodrome.ops.causal_conv_update import causal_conv_update
from hippodrome.ops.fft_conv import fft_conv
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

SMALLEST = 16
"""Size of a block whose lags are summed one by one where resets cut the convolution."""


class State(NamedTuple):
    """What a convolution must remember."""

    window: Float[Tensor, "b l_1 d"]
    """The last ``max_length - 1`` inputs, oldest first; zeros before the first token and before a reset."""


class LongConvolution(Mixer):
    """A member supplies ``kernel(length)`` (d, length), whose support is ``max_length``, and a readout.

    Outside training the kernel must follow from the member's own parameters and buffers alone, not from those
    of modules inside it: steps keep it from token to token.
    """

    max_length: int
    D: nn.Parameter

    def __init__(self) -> None:
        super().__init__()
        self._memo: Memo[Tensor] = Memo()

    @abstractmethod
    def kernel(self, length: int) -> Float[Tensor, "d length"]:
        """The first ``length`` <= ``max_length`` taps of every channel, in float32 or wider."""

    @abstractmethod
    def readout(self, y: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """What follows the convolution on each token alone."""

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the window has the length of the kernel."""
        dtype = torch.promote_types(self.D.dtype, torch.float32)
        return State(self.D.new_zeros(batch, self.max_length - 1, self.d_model, dtype=dtype))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: the sum over the window."""
        self.refuse_dt(dt_t)
        inputs = torch.cat([state.window, x_t[:, None].to(state.window.dtype)], 1)
        y_t = (inputs * self._window_taps().T).sum(1)
        return self.readout(y_t.to(x_t.dtype)), State(inputs[:, 1:])

    def advance_(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> Token:
        """One token; the window of its caller moves on in the pass that sums it."""
        self.refuse_dt(dt_t)
        return self.readout(causal_conv_update(x_t, self._window_taps(), None, state.window))

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
        wide = torch.promote_types(self.D.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            taps = self._taps(self.max_length if state is not None else min(self.max_length, x.shape[1]))
            window = None if state is None else state.window.to(wide)
            y, seen = convolve(x.to(wide), taps, window, resets, self.max_length - 1)
        return self.readout(y.to(x.dtype)), State(seen)

    def _taps(self, length: int) -> Float[Tensor, "d length"]:
        """The kernel with D, which belongs to lag zero: one pass less over the tokens."""
        k = self.kernel(length)
        return torch.cat([k[:, :1] + self.D.to(k.dtype)[:, None], k[:, 1:]], 1)

    def _window_taps(self) -> Float[Tensor, "d max_length"]:
        """The whole kernel as it meets the window: oldest first, D in its last tap."""
        return self._oldest_first() if self.training else self._memo.get(self, self._oldest_first)

    def _oldest_first(self) -> Tensor:
        with torch.autocast(self.D.device.type, enabled=False):
            return self._taps(self.max_length).flip(1)


def convolve(
    u: Float[Tensor, "b t d"],
    taps: Float[Tensor, "d l"],
    window: Float[Tensor, "b l_1 d"] | None,
    resets: Resets | None,
    past: int,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b past d"]]:
    """The causal convolution of u behind what the window holds, and the window after it.

    The window holds the ``past`` = l - 1 inputs before u. Where it is None they are zeros, and taps that
    reach none of u may be left out.
    """
    if resets is None:
        y, seen = block_conv(u, taps, window)
        # The row is shorter than the kernel, of which only what reaches it was made.
        return y, seen if seen.shape[1] == past else F.pad(u, (0, 0, past - u.shape[1], 0))
    whole = u if window is None else torch.cat([window, u], 1)
    before = whole.shape[1] - u.shape[1]
    seen = F.pad(_since_reset(whole, resets, before), (0, 0, max(0, past - whole.shape[1]), 0))
    return _cut(whole, taps, resets, before), seen[:, seen.shape[1] - past :].clone()


def _since_reset(whole: Tensor, resets: Tensor, before: int) -> Tensor:
    """The inputs, with zeros for all that lies before the last reset of its row."""
    marks = torch.cat([resets.new_zeros(resets.shape[0], before), resets], 1)
    later = marks.flip(1).cumsum(1).flip(1) - marks.long()
    return torch.where((later > 0)[..., None], 0.0, whole)


def _cut(whole: Tensor, taps: Tensor, resets: Tensor, before: int) -> Tensor:
    """The convolution with no tap across a reset; ``whole`` (b, before + t, d) begins with remembered inputs.

    Halves of halves: what the left half of a block adds to its right half comes from inputs after the last
    reset on the left, and reaches outputs before the first reset on the right. Two masks and a Fourier
    transform do that at every level, whatever the resets; the smallest blocks are summed lag by lag.
    """
    b, t, d = whole.shape
    size = SMALLEST
    while size < t:
        size *= 2
    marks = F.pad(resets, (before, size - t))
    segment = marks.cumsum(1)
    u = F.pad(whole, (0, 0, 0, size - t))
    taps = F.pad(taps, (0, max(0, size - taps.shape[1])))
    rows, pieces = u.reshape(-1, SMALLEST, d), segment.reshape(-1, SMALLEST)
    y = taps[:, 0] * rows
    for lag in range(1, SMALLEST):
        same = (pieces[:, lag:] == pieces[:, :-lag])[..., None]
        y = y + F.pad(torch.where(same, rows[:, :-lag], 0.0) * taps[:, lag], (0, 0, lag, 0))
    half = SMALLEST
    while half < size:
        left = u.reshape(-1, 2, half, d)[:, 0]
        left_piece, right_piece = segment.reshape(-1, 2, half).unbind(1)
        edge = left_piece[:, -1:]
        sent = F.pad(torch.where((left_piece == edge)[..., None], left, 0.0), (0, 0, 0, half))
        reached = fft_conv(sent, taps[:, : 2 * half])[:, half:]
        reached = torch.where((right_piece == edge)[..., None], reached, 0.0)
        y = y.reshape(-1, 2 * half, d) + F.pad(reached, (0, 0, half, 0))
        half *= 2
    return y.reshape(b, size, d)[:, before:t]
