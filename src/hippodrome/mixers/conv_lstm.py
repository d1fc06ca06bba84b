"""ConvLSTM: the long short-term memory over feature maps, its products convolutions over space."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.mixers._frames import channels_of, check_taps, unflatten
from hippodrome.mixers.base import Mixer
from hippodrome.ops.conv_scan.torch_ import convolve
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """What a ConvLSTM carries from frame to frame, both in float32 or wider."""

    h: Float[Tensor, "b i j d"]
    """The last output."""
    c: Float[Tensor, "b i j d"]
    """The cells."""


class ConvLSTM(Mixer):
    """i, f, o = sigmoid(W * x_t + U * h_{t-1} [+ P c]), c_t = f c_{t-1} + i tanh(W_c * x_t + U_c * h_{t-1}).

    Shi, Chen, Wang, Yeung, Wong, Woo 2015, "Convolutional LSTM network: a machine learning approach for
    precipitation nowcasting", arXiv 1506.04214, equation 3. The output is h_t = o tanh(c_t); * is a
    convolution over space, P c a product point by point, of i and f with c_{t-1} and of o with c_t. The gates
    look at the last output, so time runs one frame after the other; only the convolutions of the inputs are
    done for all frames at once.

    A token is a frame flattened: x (b, t, d_model) holds rows, columns, channels, the last innermost, so
    d_model = sizes[0] * sizes[1] * channels, and there are as many hidden channels. Norms around this mixer
    in a stack are over the channels of each point. The bias of f begins at 1.

    Args:
        d_model: numbers of a flattened frame, in, hidden and out.
        sizes: rows and columns of the frame.
        kernel: taps along each axis, odd.
        peepholes: whether the gates look at the cells too, by a weight for each cell of the frame; without
            them nothing depends on the place.

    Raises:
        ValueError: sizes that do not divide d_model, or an even kernel.
    """

    mixes_channels = True

    def __init__(self, d_model: int, sizes: list[int], kernel: int = 3, peepholes: bool = False) -> None:
        super().__init__()
        check_taps("ConvLSTM", kernel)
        self.d_model, self.sizes = d_model, list(sizes)
        self.point_channels = channels = channels_of("ConvLSTM", d_model, sizes)
        bound = (channels * kernel * kernel) ** -0.5
        size = (4 * channels, channels, kernel, kernel)
        self.weight_ih = nn.Parameter(torch.empty(size).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(size).uniform_(-bound, bound))
        bias = torch.zeros(4 * channels)
        bias[channels : 2 * channels] = 1.0
        self.bias = nn.Parameter(bias)
        self.peepholes = nn.Parameter(torch.zeros(3, *sizes, channels)) if peepholes else None

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        wide = torch.promote_types(self.bias.dtype, torch.float32)
        channels = self.bias.shape[0] // 4
        zeros = self.bias.new_zeros(batch, *self.sizes, channels, dtype=wide)
        return State(zeros, zeros.clone())

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One frame."""
        self.refuse_dt(dt_t)
        inputs = convolve(unflatten(x_t, self.sizes), self.weight_ih)
        state = self._advance(inputs, state, x_t.dtype)
        return state.h.flatten(1).to(x_t.dtype), state

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many frames: the inputs convolved at once, then a loop over time."""
        self.check_call(x, state, resets, dt)
        state = self.init_state(x.shape[0]) if state is None else state
        inputs = convolve(unflatten(x, self.sizes), self.weight_ih)
        outputs = []
        for k in range(x.shape[1]):
            if resets is not None:
                state = State(*self.reset_rows(state, resets[:, k]))
            state = self._advance(inputs[:, k], state, x.dtype)
            outputs.append(state.h.flatten(1))
        return torch.stack(outputs, 1).to(x.dtype), state

    def _advance(self, inputs: Tensor, state: State, dtype: torch.dtype) -> State:
        """The state after a frame whose convolution is given; h passes on in the precision of the tokens."""
        wide = state.c.dtype
        products = inputs + convolve(state.h.to(dtype), self.weight_hh)
        i, f, g, o = (products.to(wide) + self.bias.to(wide)).chunk(4, -1)
        if self.peepholes is not None:
            i = torch.addcmul(i, self.peepholes[0].to(wide), state.c)
            f = torch.addcmul(f, self.peepholes[1].to(wide), state.c)
        c = torch.sigmoid(f) * state.c + torch.sigmoid(i) * torch.tanh(g)
        if self.peepholes is not None:
            o = torch.addcmul(o, self.peepholes[2].to(wide), c)
        return State(torch.sigmoid(o) * torch.tanh(c), c)

    @classmethod
    def example(cls) -> "ConvLSTM":
        """A small instance: frames of 2 x 2 points with three channels."""
        return cls(12, [2, 2])
