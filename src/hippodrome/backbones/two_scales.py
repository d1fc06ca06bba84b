"""Two scales: one stack that starts with small step sizes along time, one with large ones, side by side."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.backbones.variates import Variates, reads_across
from hippodrome.backbones.variates import spec as over_variates
from hippodrome.mixers.base import ParameterGroup
from hippodrome.mixers.chimera import Chimera
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token

LONG, SEASONAL = "long term", "season"
STEPS = {LONG: (1e-3, 1e-2), SEASONAL: (0.1, 1.0)}
"""Step sizes at the start: hundreds of tokens remembered by the one, a few by the other."""
KINDS = ("chimera", "dss", "liquid_s4", "mamba", "mamba2", "s4", "s4d", "s5")
"""Mixers whose step sizes start where they are told, by ``dt_min`` and ``dt_max``."""


class State(NamedTuple):
    """What the two stacks carry, each a state of its own kind."""

    long: Any
    season: Any


class TwoScales(nn.Module):
    """y = [long(x_1), season(x_2)], x = [x_1, x_2]: channels of the first half and of the second.

    The long-term and the seasonal module of Chimera (Behrouz, Santacatterina, Zabih 2024, arXiv 2406.04320,
    section 3): small steps along time carry a progression over a long past, large ones what comes back soon.
    The two do not meet: each has its channels of the tokens and of the output, so that a linear head over
    the output is a sum of two heads, each module decoded apart. ``parts`` says which channels are whose. How
    the authors start the steps, and whether the second module reads what the first left over, could not be
    confirmed from a source at hand.

    Args:
        long: the stack with small steps.
        season: the stack with large steps, as wide.
        variates: where more than one, rows 0 .. v - 1 are the variates of the first series, and both stacks
            read one time of all of them as a token (``backbones.variates``).

    Raises:
        ValueError: stacks of different widths, or variates that do not divide them.
    """

    accepts_modality = False

    def __init__(self, long: Stack, season: Stack, variates: int = 1) -> None:
        super().__init__()
        if long.d_model != season.d_model:
            raise ValueError(
                f"The two stacks of two scales share a token evenly; got widths {long.d_model} and "
                f"{season.d_model}. Give both one width."
            )
        self.long: Stack | Variates = long if variates == 1 else Variates(long, variates)
        self.season: Stack | Variates = season if variates == 1 else Variates(season, variates)
        half = self.long.d_model
        self.d_model = 2 * half
        self.causal = long.causal and season.causal
        self.accepts_resets = long.accepts_resets and season.accepts_resets
        self.parts = {LONG: (0, half), SEASONAL: (half, 2 * half)}
        if variates > 1:
            self.variates = variates

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """Both stacks before the first token."""
        return State(self.long.init_state(batch, max_length), self.season.init_state(batch, max_length))

    def reset_rows(self, state: State, rows: Tensor) -> State:
        """The state with the marked rows (b,) as before the first token."""
        return State(self.long.reset_rows(state.long, rows), self.season.reset_rows(state.season, rows))

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
        modality: Tensor | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: each stack its half of the channels."""
        one, other = x.chunk(2, -1)
        before = (None, None) if state is None else State(*state)
        y, long = self.long(one, before[0], resets=resets, dt=dt)
        z, season = self.season(other, before[1], resets=resets, dt=dt)
        return torch.cat([y, z], -1), State(long, season)

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token."""
        one, other = x_t.chunk(2, -1)
        y, long = self.long.step(one, state.long, dt_t=dt_t)
        z, season = self.season.step(other, state.season, dt_t=dt_t)
        return torch.cat([y, z], -1), State(long, season)

    def advance_(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> Token:
        """One token, overwriting the state, which the caller owns."""
        one, other = x_t.chunk(2, -1)
        y = self.long.advance_(one, state.long, dt_t=dt_t)
        return torch.cat([y, self.season.advance_(other, state.season, dt_t=dt_t)], -1)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of both stacks."""
        return [*self.long.parameter_groups(), *self.season.parameter_groups()]

    @classmethod
    def example(cls) -> "TwoScales":
        """A small instance of two variates."""
        torch.manual_seed(0)
        long, season = (
            Stack([Block(Chimera(8, variates=2, d_state=2, dt_min=a, dt_max=b))]) for a, b in STEPS.values()
        )
        return cls(long, season, 2)


def spec(
    stacks: list[Callable[[int, int | None], dict[str, Any]]],
    d_model: int,
    depth: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The spec after ``two_scales:PATTERN``, each stack half of ``d_model`` wide.

    ``options``: ``variates``, how many a series has, of use to mixers that read across them (``chimera``);
    ``long`` and ``season``, [smallest, largest] step size along time at the start.

    Raises:
        ValueError: more than one pattern, another option or one that is no pair of step sizes, an odd width,
            or mixers whose step sizes do not start where they are told.
    """
    given = dict(options)
    variates = int(given.pop("variates", 1))
    starts = [given.pop(name, steps) for name, steps in zip(("long", "season"), STEPS.values(), strict=True)]
    if given or len(stacks) != 1 or d_model % 2:
        raise ValueError(
            f"two_scales takes one pattern, an even width and the options long, season and variates; got "
            f"{len(stacks)} patterns, width {d_model} and {', '.join(map(repr, given)) or 'no other option'}."
        )
    for name, start in zip(("long", "season"), starts, strict=True):
        numbers = isinstance(start, list | tuple) and all(isinstance(one, int | float) for one in start)
        if not numbers or len(start) != 2 or not 0 < start[0] <= start[1]:
            raise ValueError(
                f"two_scales takes {name} as [smallest, largest] step size, both above zero; got {start!r}. "
                f"Give two numbers."
            )
    found = []
    for start in starts:
        stack, across = stacks[0](d_model // 2, depth), False
        if any(reads_across(block["mixer"]) for block in stack["blocks"]):
            across = True
            stack = over_variates(stacks, d_model // 2, depth, {"variates": variates})["stack"]
        for block in stack["blocks"]:
            block["mixer"] = _started(block["mixer"], *start)
        found.append(stack)
    return {"long": found[0], "season": found[1], "variates": variates if across else 1}


def _started(mixer: dict[str, Any], dt_min: float, dt_max: float) -> dict[str, Any]:
    """The spec of a mixer, or of both ways of one, with these step sizes along time; along the variates a
    Chimera's stay where they usually start."""
    if mixer["kind"] == "bidirectional":
        return {**mixer, **{way: _started(mixer[way], dt_min, dt_max) for way in ("ahead", "back")}}
    if mixer["kind"] not in KINDS:
        raise ValueError(
            f"two_scales sets the step sizes that a mixer starts from, and {mixer['kind']} has none to set. "
            f"Take {', '.join(KINDS[:-1])} or {KINDS[-1]}."
        )
    usual = {"variate_dt_min": 1e-3, "variate_dt_max": 0.1} if mixer["kind"] == "chimera" else {}
    return {**usual, **mixer, "dt_min": float(dt_min), "dt_max": float(dt_max)}
