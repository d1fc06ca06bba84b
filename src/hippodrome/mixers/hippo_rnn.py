"""HiPPO-RNN: a gated recurrent cell that reads a memory of what it chose to write."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.inits import hippo
from hippodrome.mixers._blocks import steps_within
from hippodrome.mixers._memory import Invariant, Matrices, Scaled, elapsed_times, one_clock, write
from hippodrome.mixers.base import Mixer, check_word
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """What a HiPPO-RNN carries from token to token."""

    h: Float[Tensor, "b d"]
    """The hidden state, which is also the last output."""
    m: Float[Tensor, "b r n"]
    """Weights of each memory's past, in float32 or wider."""
    elapsed: Float[Tensor, "b"]
    """Time since the last reset, the clock of LegS."""


class HippoRNN(Mixer):
    """u = W_u [x, h], m = Abar m + Bbar u, then h = (1 - g) h + g tanh(W_h [x, m]), g = sigmoid(W_g [x, m]).

    Gu, Dao, Ermon, Rudra, Ré 2020, "HiPPO: recurrent memory with optimal polynomial projections", arXiv
    2008.07669: theorem 2, equations 3 and 4, with the cell as in the published code, whose hidden state reads
    the memory of this token. The memory is fixed: LegS of all of the past, or that of a window or a fading
    past. It is nonlinear in h, so time runs one step after the other.

    ``dt`` is the time that passed at each token.

    Args:
        d_model: channels in, hidden and out.
        d_state: weights n of each memory.
        d_memory: numbers r written at each token, each with a memory of its own.
        measure: "legs", "legt" or "lagt".
        theta: length of the window of "legt", and of what "lagt" mostly remembers, in steps. "legs" has none.
        discretization: "bilinear", "zoh", "forward_euler" or "backward_euler".

    Raises:
        ValueError: an unknown measure or discretization, or theta is not positive.
    """

    accepts_dt = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        d_memory: int = 1,
        measure: str = "legs",
        theta: float = 256.0,
        discretization: str = "bilinear",
    ) -> None:
        super().__init__()
        check_word("HippoRNN", "measure", measure, ["legs", "legt", "lagt"])
        if not theta > 0:
            raise ValueError(f"theta is a positive number of steps; got {theta}.")
        self.d_model, self.d_state, self.d_memory = d_model, d_state, d_memory
        if measure == "legs":
            self.memory: Scaled | Invariant = Scaled(d_state, discretization)
        else:
            A, B = hippo.MEASURES[measure](d_state)
            self.memory = Invariant(A / theta, B / theta, discretization)
        self.input = nn.Linear(2 * d_model, d_memory)
        self.cell = nn.Linear(d_model + d_memory * d_state, 2 * d_model)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        weight = self.cell.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return State(
            weight.new_zeros(batch, self.d_model, dtype=dtype),
            weight.new_zeros(batch, self.d_memory, self.d_state, dtype=dtype),
            weight.new_zeros(batch, dtype=dtype),
        )

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token."""
        dt = torch.ones_like(state.elapsed) if dt_t is None else dt_t.to(state.elapsed.dtype)
        elapsed = state.elapsed + dt
        with torch.autocast(x_t.device.type, enabled=False):
            if dt_t is None and isinstance(self.memory, Invariant):
                matrices = self.memory.constant(dt.dtype)
            else:
                matrices = self.memory.matrices(dt, elapsed)
        h, m = self._advance(*self._inputs(x_t), state.h, state.m, matrices)
        return h.to(x_t.dtype), State(h, m, elapsed)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: one after the other, with the products with x and the matrices made beforehand."""
        self.check_call(x, state, resets, dt)
        b, t, _ = x.shape
        shared = dt is None and resets is None and (state is None or one_clock(state.elapsed))
        h, m, before = self.init_state(b) if state is None else state
        with torch.autocast(x.device.type, enabled=False):
            rows = 1 if shared else b
            steps = m.new_ones(rows, t) if dt is None else dt.to(m.dtype)
            elapsed = elapsed_times(steps, before[:rows], resets)
        write_x, cell_x = self._inputs(x)
        constant = isinstance(self.memory, Invariant) and dt is None
        outputs = []
        size = t if constant else steps_within(rows * self.d_state**2)
        for start in range(0, t, size):
            stop = min(start + size, t)
            with torch.autocast(x.device.type, enabled=False):
                if isinstance(self.memory, Invariant) and dt is None:
                    matrices = self.memory.constant(m.dtype)
                else:
                    matrices = self.memory.matrices(steps[:, start:stop], elapsed[:, start:stop])
            for i in range(start, stop):
                if resets is not None:
                    fresh = resets[:, i, None]
                    h, m = torch.where(fresh, 0.0, h), torch.where(fresh[..., None], 0.0, m)
                now = matrices if constant else (matrices[0][:, i - start], matrices[1][:, i - start])
                h, m = self._advance(write_x[:, i], cell_x[:, i], h, m, now)
                outputs.append(h)
        last = State(h, m, elapsed[:, -1].expand(b).clone())
        return torch.stack(outputs, 1).to(x.dtype), last

    def _inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What x adds to u, and to gate and candidate."""
        d = self.d_model
        write_x = F.linear(x, self.input.weight[:, :d], self.input.bias)
        return write_x, F.linear(x, self.cell.weight[:, :d], self.cell.bias)

    def _advance(
        self, write_x: Tensor, cell_x: Tensor, h: Tensor, m: Tensor, matrices: Matrices
    ) -> tuple[Tensor, Tensor]:
        """The cell itself, given what x adds."""
        d, kind = self.d_model, write_x.dtype
        u = write_x + F.linear(h.to(kind), self.input.weight[:, d:])
        with torch.autocast(h.device.type, enabled=False):
            m = write(m, u.to(m.dtype), matrices)
        gate, candidate = (cell_x + F.linear(m.flatten(1).to(kind), self.cell.weight[:, d:])).chunk(2, -1)
        g = torch.sigmoid(gate).to(h.dtype)
        return (1 - g) * h + g * torch.tanh(candidate).to(h.dtype), m

    @classmethod
    def example(cls) -> "HippoRNN":
        """A small instance."""
        return cls(8, d_state=6, d_memory=2)
