"""StNN: a perceptron over a window of delays whose maps are sums of Hankel products, a reconstruction."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.hankel import HankelMap
from hippodrome.layers.projection import Projection
from hippodrome.mixers.base import Mixer
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

SLOPE = 0.01
"""Of the leaky rectifier below zero."""


class State(NamedTuple):
    """What an StNN carries from token to token."""

    window: Float[Tensor, "b w_1 d"]
    """The last ``delays`` - 1 tokens, oldest first; zeros before the first."""


class StNN(Mixer):
    """v = (x_t, x_{t-1}, ..., x_{t-w+1}, 0, ..., 0), then v <- v + phi(M_l v), and y_t = M_L v.

    Every M_l v is sum_q D_q H_q E_q v + b_l, H_q a Hankel matrix applied by Fourier transforms, D_q and E_q
    diagonal, phi a leaky rectifier: O(p n) parameters and O(p n log n) work in the place of n^2, on vectors
    of n numbers, a power of two. The last map gives d numbers.

    Aluvihare, Lingsch, Li, Perera 2025, "A low-complexity structured neural network to realize states of
    dynamical systems", arXiv 2503.23697. This is a reconstruction: only the abstract could be read, which
    tells of a Hankel operator on delayed states, structured factors and their cost, and no equation 1 or
    later one of the paper was seen. How a layer looks, its skip, and the last one without phi are ours.

    A window ends where a piece begins, so no delay vector crosses the border of a trajectory.

    Args:
        d_model: channels in and out.
        delays: tokens w of the window, the newest among them.
        size: n; None takes the smallest power of two that holds the window.
        layers: maps L one after the other.
        factors: p, products that are added to make a map.
        dense: whether the maps are matrices without structure: the perceptron that StNN is to stand in for.

    Raises:
        ValueError: fewer than one delay or layer, or a size that is no power of two or too small.
    """

    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        delays: int = 8,
        size: int | None = None,
        layers: int = 3,
        factors: int = 2,
        dense: bool = False,
    ) -> None:
        super().__init__()
        if min(delays, layers) < 1:
            raise ValueError(
                f"An StNN has one delay and one layer at least; got delays={delays} and layers={layers}. "
                "Correct the smaller."
            )
        least = 1 << (delays * d_model - 1).bit_length()
        size = least if size is None else size
        if size < least or size & (size - 1):
            raise ValueError(
                f"The vectors of an StNN are a power of two of numbers and hold the window, {delays} tokens "
                f"of {d_model}, so {least} or more; got size={size}. Take {least}."
            )
        self.d_model, self.delays, self.size = d_model, delays, size
        ins = [delays * d_model, *[size] * (layers - 1)]
        outs = [*[size] * (layers - 1), d_model]
        shapes = list(zip(ins, outs, strict=True))
        self.maps = nn.ModuleList(Projection(n, m) if dense else HankelMap(n, m, factors) for n, m in shapes)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the window does not grow."""
        bias: Tensor = self.maps[0].bias  # type: ignore[assignment]
        dtype = torch.promote_types(bias.dtype, torch.float32)
        return State(bias.new_zeros(batch, self.delays - 1, self.d_model, dtype=dtype))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token."""
        self.refuse_dt(dt_t)
        inputs = torch.cat([state.window, x_t[:, None].to(state.window.dtype)], 1)
        return self._perceptron(inputs.flip(1)).to(x_t.dtype), State(inputs[:, 1:])

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: the windows of all of them at once."""
        self.check_call(x, state, resets, dt)
        before = self.delays - 1
        window = (self.init_state(x.shape[0]) if state is None else state).window
        inputs = torch.cat([window, x.to(window.dtype)], 1)
        windows = inputs.unfold(1, self.delays, 1).transpose(2, 3)  # b t w d, oldest first
        if resets is not None:
            piece = torch.cat([resets.new_zeros(x.shape[0], before), resets], 1).cumsum(1)
            own = piece.unfold(1, self.delays, 1) == piece[:, before:, None]
            windows = torch.where(own[..., None], windows, 0.0)
            inputs = torch.where((piece == piece[:, -1:])[..., None], inputs, 0.0)
        y = self._perceptron(windows.flip(2))
        return y.to(x.dtype), State(inputs[:, inputs.shape[1] - before :].clone())

    def _perceptron(self, delayed: Tensor) -> Tensor:
        """Windows (..., w, d), newest first, to outputs (..., d)."""
        v = delayed.flatten(-2)
        for layer in self.maps[:-1]:
            z = F.leaky_relu(layer(v), SLOPE)
            v = z + F.pad(v, (0, self.size - v.shape[-1]))
        return self.maps[-1](v)

    @classmethod
    def example(cls) -> "StNN":
        """A small instance whose window does not fill its vectors."""
        return cls(3, delays=3, size=16)
