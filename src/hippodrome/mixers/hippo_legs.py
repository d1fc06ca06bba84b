"""HiPPO-LegS: a memory of all of the past, varying in time, under a linear readout."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.layers.projection import Projection
from hippodrome.mixers._blocks import run_in_blocks, steps_within
from hippodrome.mixers._memory import Scaled, elapsed_times, one_clock, write, writes
from hippodrome.mixers.base import Mixer
from hippodrome.ops.dense_scan import dense_scan
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """What HiPPO-LegS carries from token to token."""

    c: Float[Tensor, "b r n"]
    """Weights of each memory's past on Legendre polynomials, in float32 or wider."""
    elapsed: Float[Tensor, "b"]
    """Time since the last reset: the number of tokens where no ``dt`` was given."""


class HippoLegS(Mixer):
    """c' = (A c + B u) / t with u = W_u x, and y = W [c, x] + bias.

    Gu, Dao, Ermon, Rudra, Ré 2020, "HiPPO: recurrent memory with optimal polynomial projections", arXiv
    2008.07669, theorem 2, equations 3 and 4 (the latter is forward Euler). After time t the state holds the
    weights of each input's whole past on the polynomials sqrt(2i+1) P_i(2 s / t - 1). Nothing in it is
    learned: W_u chooses what is remembered, W what is read.

    One step depends on its length relative to the elapsed time alone. ``dt`` is the time that passed at each
    token: multiplying all of them by one number changes nothing. A reset sets the clock back to zero.

    Args:
        d_model: channels in and out.
        d_state: weights n of each memory.
        d_memory: numbers r written at each token, each with a memory of its own.
        discretization: "bilinear", "backward_euler", "zoh" (as published), "exact" (an input constant over
            each step) or "forward_euler", which is unstable in its first d_state / 2 steps.
        start: "first" takes the past before the first input to be that input; "zero" starts from c = 0.

    Raises:
        ValueError: an unknown discretization or start.
    """

    accepts_dt = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        d_memory: int = 1,
        discretization: str = "bilinear",
        start: str = "first",
    ) -> None:
        super().__init__()
        self.d_model, self.d_state, self.d_memory = d_model, d_state, d_memory
        self.memory = Scaled(d_state, discretization, start)
        self.input = Projection(d_model, d_memory, bias=False)
        self.output = Projection(d_memory * d_state + d_model, d_model)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        weight = self.output.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return State(
            weight.new_zeros(batch, self.d_memory, self.d_state, dtype=dtype),
            weight.new_zeros(batch, dtype=dtype),
        )

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token."""
        u = self.input(x_t).to(state.c.dtype)
        dt = torch.ones_like(state.elapsed) if dt_t is None else dt_t.to(state.elapsed.dtype)
        elapsed = state.elapsed + dt
        with torch.autocast(x_t.device.type, enabled=False):
            c = write(state.c, u, self.memory.matrices(dt, elapsed))
        return self._read(c, x_t), State(c, elapsed)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: a scan with a matrix for each step, in blocks of time.

        Where all rows have the same clock they share the matrices.
        """
        self.check_call(x, state, resets, dt)
        b, t, _ = x.shape
        shared = dt is None and resets is None and (state is None or one_clock(state.elapsed))
        state = self.init_state(b) if state is None else state
        u = self.input(x).to(state.c.dtype)
        with torch.autocast(x.device.type, enabled=False):
            rows = 1 if shared else b
            steps = u.new_ones(rows, t) if dt is None else dt.to(u.dtype)
            elapsed = elapsed_times(steps, state.elapsed[:rows], resets)

            def block(
                c: Tensor, u: Tensor, steps: Tensor, elapsed: Tensor, resets: Tensor | None
            ) -> tuple[Tensor, Tensor]:
                Abar, Bbar = self.memory.matrices(steps, elapsed)
                return dense_scan(Abar[0] if shared else Abar, writes(u, Bbar), c, resets)

            length = steps_within(rows * self.d_state**2)
            states, c = run_in_blocks(block, length, state.c, u, steps, elapsed, resets)
        return self._read(states, x), State(c, elapsed[:, -1].expand(b).clone())

    def _read(self, c: Tensor, x: Tensor) -> Tensor:
        return self.output(torch.cat([c.flatten(-2).to(x.dtype), x], -1))

    @classmethod
    def example(cls) -> "HippoLegS":
        """A small instance."""
        return cls(8, d_state=6, d_memory=2)
