"""LMU: the Legendre memory unit in its parallel form, a sliding window on Legendre polynomials."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hippodrome.inits import hippo
from hippodrome.layers.projection import Projection
from hippodrome.mixers._blocks import run_in_blocks, steps_within
from hippodrome.mixers._memory import Invariant, write, writes
from hippodrome.mixers.base import Mixer, check_word
from hippodrome.ops.dense_scan import dense_scan
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "tanh": torch.tanh,
    "none": lambda y: y,
}


class State(NamedTuple):
    """What an LMU carries from token to token."""

    m: Float[Tensor, "b r n"]
    """Weights of each memory's window on Legendre polynomials, in float32 or wider."""


class LMU(Mixer):
    """theta m' = A m + B u with u = W_u x, and y = f(W [m, x] + bias).

    Voelker, Kajić, Eliasmith 2019, "Legendre memory units: continuous-time representation in recurrent neural
    networks", equations 1 and 2, discretized by zero-order hold; with no path from the output back to
    the memory, so that it runs in parallel: Chilkuri, Eliasmith 2021, "Parallelizing Legendre memory unit
    training", arXiv 2102.11417. A and B are fixed. The input of s steps ago, s from 0 to theta, is about the
    sum of m_i P_i(2 s / theta - 1).

    ``dt`` is the length of a step; theta is then in the same unit of time.

    Args:
        d_model: channels in and out.
        d_state: weights n of each memory.
        d_memory: numbers r written at each token, each with a memory of its own.
        theta: length of the window, in steps.
        activation: f: "gelu", "relu", "tanh" or "none".

    Raises:
        ValueError: theta is not positive, or an unknown activation.
    """

    accepts_dt = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        d_memory: int = 1,
        theta: float = 256.0,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        check_word("LMU", "activation", activation, ACTIVATIONS)
        self.d_model, self.d_state, self.d_memory = d_model, d_state, d_memory
        self.activation = activation
        self.memory = Invariant(*hippo.lmu(d_state, theta), "zoh")
        self.input = Projection(d_model, d_memory, bias=False)
        self.output = Projection(d_memory * d_state + d_model, d_model)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Zeros. ``max_length`` changes nothing: the state does not grow."""
        weight = self.output.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return State(weight.new_zeros(batch, self.d_memory, self.d_state, dtype=dtype))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token: m = Abar m + Bbar u."""
        kind = state.m.dtype
        u = self.input(x_t).to(kind)
        with torch.autocast(x_t.device.type, enabled=False):
            one = self.memory.constant(kind) if dt_t is None else self.memory.matrices(dt_t.to(kind))
            m = write(state.m, u, one)
        return self._read(m, x_t), State(m)

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: a scan with constant matrices; with ``dt`` one with a matrix for each token."""
        self.check_call(x, state, resets, dt)
        m = self.init_state(x.shape[0]).m if state is None else state.m
        u = self.input(x).to(m.dtype)
        with torch.autocast(x.device.type, enabled=False):
            if dt is None:
                Abar, Bbar = self.memory.constant(m.dtype)
                states, m = dense_scan(Abar, writes(u, Bbar), m, resets)
            else:

                def block(m: Tensor, u: Tensor, dt: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
                    Abar, Bbar = self.memory.matrices(dt)
                    return dense_scan(Abar, writes(u, Bbar), m, resets)

                length = steps_within(x.shape[0] * self.d_state**2)
                states, m = run_in_blocks(block, length, m, u, dt.to(m.dtype), resets)
        return self._read(states, x), State(m)

    def _read(self, m: Tensor, x: Tensor) -> Tensor:
        y = self.output(torch.cat([m.flatten(-2).to(x.dtype), x], -1))
        return ACTIVATIONS[self.activation](y)

    @classmethod
    def example(cls) -> "LMU":
        """A small instance."""
        return cls(8, d_state=6, d_memory=2, theta=9.0)
