"""What reads a row of a known number of tokens as one whole: no state, no step, no pieces, no time."""

import math
from abc import ABC, abstractmethod
from typing import Any, NoReturn

from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.shapes import Resets, Sequence, TimeSteps


class WholeRows(nn.Module, ABC):
    """A backbone over whole rows. A member sets ``whole`` and supplies ``read``."""

    causal = False
    accepts_resets = False
    accepts_modality = False
    whole: list[int]
    """The sizes of a row's grid, whose product is the number of tokens."""

    @abstractmethod
    def read(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t2 d2"]:
        """What a row becomes, the points of its grid as tokens in C order."""

    def init_state(self, batch: int, max_length: int | None = None) -> NoReturn:
        """Refused: there is no state."""
        self._refuse()

    def step(self, x_t: Tensor, state: Any, *, dt_t: Tensor | None = None) -> NoReturn:
        """Refused: there is no step."""
        self._refuse()

    def forward(
        self,
        x: Sequence,
        state: Any = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
        modality: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b t2 d2"], tuple]:
        """A whole row; the state handed back is empty.

        Raises:
            ValueError: a state, resets or dt is given, or the tokens are not as many as the row's.
        """
        if state is not None:
            self._refuse()
        check_whole(type(self).__name__, x, self.whole, resets=resets, dt=dt)
        return self.read(x), ()

    def _refuse(self) -> NoReturn:
        raise ValueError(
            f"{type(self).__name__} reads a row as one whole, so it has neither a state nor a step. Hand the "
            "whole row to forward, or take a stack of causal mixers."
        )


def check_whole(owner: str, x: Tensor, sizes: list[int], **given: Tensor | None) -> None:
    """Raise where a row is not the whole grid of these sizes, or something is given that grids have not.

    Raises:
        ValueError: then.
    """
    points, named = math.prod(sizes), [name for name, value in given.items() if value is not None]
    if x.shape[1] == points and not named:
        return
    grid = f"grids of {' x '.join(map(str, sizes))} = {points}" if len(sizes) > 1 else f"rows of {points}"
    raise ValueError(
        f"{owner} takes whole {grid} tokens and no {' or '.join(given)}; got {x.shape[1]} tokens"
        f"{''.join(f' and {name}' for name in named)}. Set `sizes`, one grid a row."
    )
