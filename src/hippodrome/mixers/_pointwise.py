"""The pointwise engine: what acts on each token alone, a mixer that carries nothing along."""

from abc import abstractmethod
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from hippodrome.mixers.base import Mixer
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """Nothing: a token knows of no other."""


class Pointwise(Mixer):
    """y_t = f(x_t). A member supplies f, for any number of tokens.

    It stands where a mixer may, so that a pattern can place it: one residual branch of its own.
    """

    mixes_channels = True

    @abstractmethod
    def tokens(self, x: Float[Tensor, "*tokens d"]) -> Float[Tensor, "*tokens d"]:
        """Each token on its own: (b, t, d) in ``forward``, (b, d) in ``step``."""

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Nothing."""
        return State()

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token."""
        self.refuse_dt(dt_t)
        return self.tokens(x_t), State()

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens at once. A reset changes nothing."""
        self.check_call(x, state, resets, dt)
        return self.tokens(x), State()
