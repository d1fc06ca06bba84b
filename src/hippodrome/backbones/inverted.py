"""Inverted: at each time a sequence over the variates, for models whose token is a window of one variate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.backbones.variates import by_series, only_variates
from hippodrome.mixers.base import ParameterGroup
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """Nothing: no time hears of another."""


class Inverted(nn.Module):
    """Rows 0 .. v - 1 are the variates of the first series, the next v those of the second, and so on.

    Liu et al. 2023, "iTransformer: inverted transformers are effective for time series forecasting", arXiv
    2310.06625, section 3: variates are the tokens. Wang et al. 2024, "Is Mamba effective for time series
    forecasting?", arXiv 2403.11144 (S-Mamba), has the same with Mamba both ways in the place of attention. A
    forecaster hands every variate over as a row of its own, (b v, t, d). Here the v tokens of one time are
    read as a row by the stack, which may read both ways, because variates have no past. Times know nothing of
    each other, so the backbone is causal, its state is empty and pieces of any length join. In the papers
    there is one time, whose token is the whole look-back of a variate: a patch as long as that. Rows that the
    last series lacks are zeros to the others.

    Args:
        stack: of any mixers; reads (b t, v, d).
        variates: v.

    Raises:
        ValueError: fewer than one variate.
    """

    causal, accepts_resets, accepts_modality, accepts_dt = True, True, False, False
    tokens_are_variates = True
    """A forecaster's patch is the whole look-back unless it is told otherwise."""

    def __init__(self, stack: Stack, variates: int) -> None:
        super().__init__()
        if variates < 1:
            raise ValueError(f"A series has one variate or more; got {variates}.")
        self.variates, self.d_model = variates, stack.d_model
        self.stack = stack

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """The empty state."""
        return State()

    def reset_rows(self, state: State, rows: Tensor) -> State:
        """The empty state."""
        return State()

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
        modality: Tensor | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: (b v, t, d) to the same. A reset changes nothing.

        Raises:
            ValueError: ``dt`` is given, which would mean nothing.
        """
        if dt is not None:
            raise ValueError(
                "Inverted reads variates and not time, so it takes no dt. Drop dt, or choose a backbone "
                "whose mixers run along time."
            )
        v = self.variates
        lines = by_series(x, v).transpose(1, 2)  # b t v d
        y, _ = self.stack(lines.flatten(0, 1))
        return y.view(lines.shape).transpose(1, 2).flatten(0, 1)[: x.shape[0]], State()

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token of every variate."""
        y, state = self(x_t[:, None], dt=dt_t)
        return y[:, 0], state

    def advance_(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> Token:
        """One token of every variate; there is nothing to overwrite."""
        return self.step(x_t, state, dt_t=dt_t)[0]

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of the stack."""
        return self.stack.parameter_groups()

    @classmethod
    def example(cls) -> "Inverted":
        """A small instance of two variates."""
        torch.manual_seed(0)
        return cls(Stack([Block(Bidirectional(MinGRU(6), MinGRU(6)))]), 2)


def spec(
    stacks: list[Callable[[int, int | None], dict[str, Any]]],
    d_model: int,
    depth: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The spec after ``inverted:PATTERN``.

    ``options``: ``variates``, how many a series has.

    Raises:
        ValueError: another number of patterns than one, another option, or no number of variates.
    """
    variates = only_variates("inverted", options)
    if len(stacks) != 1:
        raise ValueError(f"inverted takes one pattern; got {len(stacks)}.")
    return {"stack": stacks[0](d_model, depth), "variates": variates}
