"""Variates: a stack whose token is one time of all variates, for models that hand over a row for each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.base import ParameterGroup
from hippodrome.mixers.chimera import Chimera
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """What the stack carries of each series of variates."""

    inner: tuple


class Variates(nn.Module):
    """Rows 0 .. v - 1 are the variates of the first series, the next v those of the second, and so on.

    A forecaster hands every variate over as a row of its own. Here those of one series are set side by side,
    (b v, t, c) to (b, t, v c), for mixers that look across them (``chimera``), and taken apart again. Rows
    that the last series lacks are zeros. What is carried has a row for each series.

    Args:
        stack: of a width that is a multiple of ``variates``.
        variates: rows of a series.

    Raises:
        ValueError: variates that do not divide the width of the stack.
    """

    accepts_modality = False

    def __init__(self, stack: Stack, variates: int) -> None:
        super().__init__()
        if variates < 1 or stack.d_model % variates:
            raise ValueError(
                f"A stack over {variates} variates has a width that is a multiple of them; got "
                f"{stack.d_model}."
            )
        self.variates, self.d_model = variates, stack.d_model // variates
        self.causal, self.accepts_resets = stack.causal, stack.accepts_resets
        self.stack = stack

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """The stack before the first token of each series."""
        return State(self.stack.init_state(-(-batch // self.variates), max_length))

    def reset_rows(self, state: State, rows: Tensor) -> State:
        """The state with the marked series as before their first token; all variates of one are marked."""
        return State(self.stack.reset_rows(state.inner, rows[:: self.variates]))

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
        modality: Tensor | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens. Resets and time steps are those of each series' first variate: there is one clock."""
        v = self.variates
        rows, x = x.shape[0], by_series(x, v).transpose(1, 2).flatten(2)
        marks, times = (None if z is None else z[::v] for z in (resets, dt))
        y, inner = self.stack(x, None if state is None else State(*state).inner, resets=marks, dt=times)
        return y.unflatten(2, (v, -1)).transpose(1, 2).flatten(0, 1)[:rows], State(inner)

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token of every variate."""
        v = self.variates
        rows, x_t = x_t.shape[0], by_series(x_t, v).flatten(1)
        y, inner = self.stack.step(x_t, State(*state).inner, dt_t=None if dt_t is None else dt_t[::v])
        return y.unflatten(1, (v, -1)).flatten(0, 1)[:rows], State(inner)

    def advance_(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> Token:
        """One token, overwriting the state, which the caller owns."""
        v = self.variates
        rows, x_t = x_t.shape[0], by_series(x_t, v).flatten(1)
        y = self.stack.advance_(x_t, State(*state).inner, dt_t=None if dt_t is None else dt_t[::v])
        return y.unflatten(1, (v, -1)).flatten(0, 1)[:rows]

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of the stack."""
        return self.stack.parameter_groups()

    @classmethod
    def example(cls) -> "Variates":
        """A small instance of two variates."""
        torch.manual_seed(0)
        return cls(Stack([Block(Chimera(8, variates=2, d_state=2))]), 2)


def by_series(x: Tensor, variates: int) -> Tensor:
    """Rows (b v, ...) as series (b, v, ...); where rows are missing from the last one, they are zeros."""
    missing = -x.shape[0] % variates
    return F.pad(x, (0, 0) * (x.dim() - 1) + (0, missing)).unflatten(0, (-1, variates))


def spec(
    stacks: list[Callable[[int, int | None], dict[str, Any]]],
    d_model: int,
    depth: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The spec after ``variates:PATTERN``, ``d_model`` wide for each variate.

    ``options``: ``variates``, how many a series has. Mixers that ask for ``variates`` are told.

    Raises:
        ValueError: another number of patterns than one, another option, or no number of variates.
    """
    variates = only_variates("variates", options)
    if len(stacks) != 1:
        raise ValueError(f"variates takes one pattern; got {len(stacks)}.")
    stack = stacks[0](variates * d_model, depth)
    for block in stack["blocks"]:
        block["mixer"] = _told(block["mixer"], variates)
    return {"stack": stack, "variates": variates}


def reads_across(mixer: dict[str, Any]) -> bool:
    """Whether the spec of a mixer is of one that asks for ``variates``, or of both ways of one."""
    return mixer["kind"] == "chimera" or (mixer["kind"] == "bidirectional" and reads_across(mixer["ahead"]))


def _told(mixer: dict[str, Any], variates: int) -> dict[str, Any]:
    if mixer["kind"] == "bidirectional":
        return {**mixer, **{way: _told(mixer[way], variates) for way in ("ahead", "back")}}
    return {**mixer, "variates": variates} if reads_across(mixer) else mixer


def only_variates(owner: str, options: dict[str, Any]) -> int:
    """The number of variates from the options of a shape, which has no other.

    Raises:
        ValueError: another option, or none.
    """
    if set(options) != {"variates"}:
        raise ValueError(
            f"{owner} needs how many variates a series has, and nothing else: give variates=7, say "
            f"(-s model.options.{owner}.variates=7, in a race -s options.{owner}.variates=7); got "
            f"{', '.join(map(repr, options)) or 'nothing'}."
        )
    return int(options["variates"])
