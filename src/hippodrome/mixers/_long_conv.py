"""The long convolution engine: y_t = sum_l k_l x_{t-l} + D x_t with a kernel of bounded support."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.mixers.base import Mixer
from hippodrome.ops.fft_conv import fft_conv
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """What a convolution must remember."""

    window: Float[Tensor, "b l_1 d"]
    """The last ``max_length - 1`` inputs, oldest first; zeros before the first token and before a reset."""


class LongConvolution(Mixer):
    """A member supplies ``kernel(length)`` (d, length), whose support is ``max_length``, and a readout."""

    max_length: int
    D: nn.Parameter

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
        taps = self.kernel(self.max_length).flip(1).T
        y_t = (inputs * taps).sum(1) + self.D * inputs[:, -1]
        return self.readout(y_t.to(x_t.dtype)), State(inputs[:, 1:])

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
        past = self.max_length - 1
        wide = torch.promote_types(self.D.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            u = x.to(wide)
            taps = self.kernel(min(self.max_length, x.shape[1] + (0 if state is None else past)))
            whole = u if state is None else torch.cat([state.window.to(wide), u], 1)
            before = whole.shape[1] - x.shape[1]
            y = fft_conv(whole, taps)[:, before:] if resets is None else _pieces(whole, taps, resets, before)
            y = y + self.D.to(wide) * u
            seen = whole if resets is None else _since_reset(whole, resets, before)
            window = torch.cat(
                [seen.new_zeros(x.shape[0], max(0, past - seen.shape[1]), x.shape[2]), seen], 1
            )
        return self.readout(y.to(x.dtype)), State(window[:, window.shape[1] - past :].clone())


def _since_reset(whole: Tensor, resets: Tensor, before: int) -> Tensor:
    """The inputs, with zeros for all that lies before the last reset of its row."""
    marks = torch.cat([resets.new_zeros(resets.shape[0], before), resets], 1)
    later = marks.flip(1).cumsum(1).flip(1) - marks.long()
    return torch.where((later > 0)[..., None], 0.0, whole)


def _pieces(whole: Tensor, taps: Tensor, resets: Tensor, before: int) -> Tensor:
    """The convolution of every stretch between resets on its own, stretches of like length in one batch.

    ``whole`` (b, before + t, d) has ``before`` remembered inputs, which belong to a row's first stretch.
    """
    t = resets.shape[1]
    marks = resets.clone()
    marks[:, 0] = True
    row, start = marks.nonzero(as_tuple=True)
    stop = torch.cat([start[1:], start.new_zeros(1)])
    stop = torch.where(stop > 0, stop, t)
    # A first stretch that does not itself begin with a reset goes on from what is remembered.
    start = torch.where((start == 0) & ~resets[row, 0], 0, start + before)
    stop = stop + before
    size = stop - start
    y = torch.zeros_like(whole)
    shortest = 0
    while shortest < int(size.max()):
        longest = max(8, 2 * shortest)
        chosen = (size > shortest) & (size <= longest)
        shortest = longest
        if not bool(chosen.any()):
            continue
        longest = int(size[chosen].max())
        position = start[chosen, None] + torch.arange(longest, device=whole.device)
        inside = position < stop[chosen, None]
        position = torch.where(inside, position, 0)
        index = row[chosen, None].expand_as(position)
        piece = torch.where(inside[..., None], whole[index, position], 0.0)
        out = fft_conv(piece, taps)
        y = y.index_put((index[inside], position[inside]), out[inside])
    return y[:, before:]
