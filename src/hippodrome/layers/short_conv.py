"""The short causal convolution that stands before a recurrence: one filter a channel, its state a window."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.ops.causal_conv import causal_conv
from hippodrome.ops.causal_conv_update import causal_conv_update
from hippodrome.shapes import Resets, Sequence, Token

Window = Float[Tensor, "b w_1 d"]


class ShortConv(nn.Module):
    """y_t[d] = bias[d] + sum_k weight[d, k] x_{t-w+1+k}[d], then silu if wanted; no tap crosses a reset.

    The window is the last w - 1 raw inputs, oldest first. Parameters have the names, shapes and initial
    values of a depthwise ``torch.nn.Conv1d``: weight (d, 1, w), bias (d).

    Args:
        channels: d.
        taps: w; with 1 the layer only scales and shifts each channel.
        silu: whether silu follows.
        bias: whether there is one.

    Raises:
        ValueError: fewer than one tap.
    """

    bias: nn.Parameter | None

    def __init__(self, channels: int, taps: int, *, silu: bool = False, bias: bool = True) -> None:
        super().__init__()
        if taps < 1:
            raise ValueError(f"A short convolution needs at least one tap; got {taps}.")
        self.taps = taps
        self.silu = silu
        bound = taps**-0.5
        self.weight = nn.Parameter(torch.empty(channels, 1, taps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound)) if bias else None

    def init_window(self, batch: int) -> Window:
        """The window before the first token: zeros."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        return self.weight.new_zeros(batch, self.taps - 1, self.weight.shape[0], dtype=dtype)

    def forward(self, x: Sequence, window: Window | None, resets: Resets | None) -> tuple[Sequence, Window]:
        """Many tokens, and the window after them."""
        taps = self.weight.squeeze(1)
        return causal_conv(x, taps, self.bias, window, resets, activation="silu" if self.silu else None)

    def step(self, x_t: Token, window: Window) -> tuple[Token, Window]:
        """One token, and the window after it."""
        inputs = torch.cat([window, x_t[:, None].to(window.dtype)], 1)
        y_t = (inputs * self.weight.squeeze(1).T).sum(1)
        y_t = (y_t if self.bias is None else y_t + self.bias).to(x_t.dtype)
        return F.silu(y_t) if self.silu else y_t, inputs[:, 1:]

    def advance_(self, x_t: Token, window: Window) -> Token:
        """One token, overwriting a window that its caller owns. No gradients."""
        taps = self.weight.view(-1, self.taps)
        return causal_conv_update(x_t, taps, self.bias, window, activation="silu" if self.silu else None)


class NoConv(nn.Module):
    """What an engine holds in a short convolution's place where a member has none: a window of nothing."""

    _empty: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("_empty", torch.empty(0, channels), persistent=False)

    def init_window(self, batch: int) -> Window:
        """(b, 0, d)."""
        dtype = torch.promote_types(self._empty.dtype, torch.float32)
        return self._empty.new_zeros(batch, *self._empty.shape, dtype=dtype)

    def forward(self, x: Sequence, window: Window | None, resets: Resets | None) -> tuple[Sequence, Window]:
        """The tokens as they are."""
        return x, self.init_window(x.shape[0])

    def step(self, x_t: Token, window: Window) -> tuple[Token, Window]:
        """The token as it is."""
        return x_t, window

    def advance_(self, x_t: Token, window: Window) -> Token:
        """The token as it is."""
        return x_t
