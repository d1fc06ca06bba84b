"""The gated recurrent unit: the nonlinear recurrence every race is run against."""

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.mixers.base import Mixer
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """What a GRU carries from token to token."""

    h: Float[Tensor, "b d"]
    """The hidden state, which is also the last output."""


class GRU(Mixer):
    """h_t = (1 - z_t) n_t + z_t h_{t-1} with reset and update gates that look at h_{t-1}.

    Cho et al. 2014, arXiv 1406.1078, equations 5 to 8, in the form of cuDNN, where the reset gate multiplies
    the candidate's recurrent product: r = sigmoid(W_r x + U_r h), z = sigmoid(W_z x + U_z h),
    n = tanh(W_n x + b_n + r (U_n h + c_n)). The weights have the order and first values of ``torch.nn.GRU``;
    time runs one step after the other inside its fused kernel.

    Args:
        d_model: channels in, hidden and out.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model
        # Held here and not in an nn.GRU, which torch.compile refuses to trace.
        bound = d_model**-0.5
        self.weight_ih = nn.Parameter(torch.empty(3 * d_model, d_model).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(3 * d_model, d_model).uniform_(-bound, bound))
        self.bias_ih = nn.Parameter(torch.empty(3 * d_model).uniform_(-bound, bound))
        self.bias_hh = nn.Parameter(torch.empty(3 * d_model).uniform_(-bound, bound))

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        dtype = torch.promote_types(self.weight_hh.dtype, torch.float32)
        return State(self.weight_hh.new_zeros(batch, self.d_model, dtype=dtype))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token."""
        self.refuse_dt(dt_t)
        h = torch.gru_cell(x_t, state.h.to(x_t.dtype), *self._weights())
        return h, State(h.to(state.h.dtype))

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: the fused kernel over each stretch in which no row is reset."""
        self.check_call(x, state, resets, dt)
        state = self.init_state(x.shape[0]) if state is None else state
        if resets is None:
            return self._run(x, state)
        # While a graph is traced the marks have no values, so every token is a stretch of its own.
        traced = torch.compiler.is_compiling()
        marked = range(x.shape[1]) if traced else resets.any(0).nonzero()[:, 0].tolist()
        cuts = [0, *(i for i in marked if i > 0), x.shape[1]]
        outputs = []
        for first, end in pairwise(cuts):
            y, state = self._run(x[:, first:end], State(*self.reset_rows(state, resets[:, first])))
            outputs.append(y)
        return torch.cat(outputs, 1), state

    def _weights(self) -> list[Tensor]:
        return [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]

    def _run(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h = state.h.to(x.dtype)[None]
        y, last = torch.gru(x, h, self._weights(), True, 1, 0.0, self.training, False, True)
        return y, State(last[0].to(state.h.dtype))

    @classmethod
    def example(cls) -> "GRU":
        """A small instance."""
        return cls(8)
