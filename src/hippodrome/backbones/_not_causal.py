"""What a mixer refuses that reads tokens which come later: a state, and a step."""

from typing import Any, NoReturn

from torch import Tensor

from hippodrome.mixers.base import Mixer


class NotCausal(Mixer):
    """A mixer that reads a row as one whole."""

    causal = False

    def init_state(self, batch: int, max_length: int | None = None) -> NoReturn:
        """Refused: what reads later tokens has no state."""
        self.refuse()

    def step(self, x_t: Tensor, state: Any, *, dt_t: Tensor | None = None) -> NoReturn:
        """Refused: what reads later tokens has no step."""
        self.refuse()

    def refuse(self) -> NoReturn:
        """Say why there is neither.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"{type(self).__name__} reads tokens that come later, so it has neither a state nor a step, and "
            "cannot run on from a state. Hand the whole sequence to forward, or choose a causal mixer "
            "(`hippodrome list mixers`)."
        )
