"""TSM2: mixers along time and mixers along the variates in turn, each reading all earlier outputs weighed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hippodrome.backbones._averages import Averages, order_of
from hippodrome.backbones._rows import overwrite
from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.backbones.mamba_mixer import parts
from hippodrome.backbones.variates import by_series, only_variates
from hippodrome.layers.norm import NormKind, build_norm
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class State(NamedTuple):
    """What the time mixers carry, first one first."""

    time: tuple


class TSM2(nn.Module):
    """y_time = time(norm(x_time)) of every variate, y_var = across(norm(x_var)) of every time, x_time and
    x_var weighted averages of all earlier outputs of both kinds; then a norm.

    Behrouz, Santacatterina, Zabih 2024, "MambaMixer: efficient selective state space models with dual token
    and channel selection", arXiv 2403.19888, section 5, the time series model. Rows 0 .. v - 1 are the
    variates of the first series, the next v those of the second, as a forecaster hands them over, whose
    patches are the tokens. A time mixer reads each row by itself, from the past on; a variate mixer reads the
    v tokens of one time as a sequence, both ways in the paper. Nothing looks ahead in time, so the model has
    a state and a step. Rows that the last series lacks are zeros to the others. Static and future inputs are
    not part of it.

    Args:
        time: causal mixers along time, all of one width.
        across: mixers along the variates, of the same width; at most as many, spread evenly behind those.
        variates: v.
        norm: in front of every mixer and at the end, "rms" or "layer", over the channels of a token.
        dropout: chance that an element of an output is dropped in training.

    Raises:
        ValueError: no time mixer, more variate mixers than time mixers, a time mixer that reads later tokens,
            fewer than one variate, or widths that differ.
    """

    accepts_modality = False

    def __init__(
        self,
        time: list[Mixer],
        across: list[Mixer],
        variates: int,
        norm: NormKind = "rms",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.order = order_of(len(time), len(across), "TSM2")
        widths = {mixer.d_model for mixer in (*time, *across)}
        if len(widths) != 1 or variates < 1 or not all(mixer.causal for mixer in time):
            raise ValueError(
                "TSM2 has mixers of one width, causal ones along time, and one variate or more; got widths "
                f"{sorted(widths)}, {variates} variates and along time "
                f"{', '.join(sorted({type(mixer).__name__ for mixer in time}))}."
            )
        self.d_model, self.variates = time[0].d_model, variates
        self.causal, self.accepts_resets = True, all(mixer.accepts_resets for mixer in time)
        self.time, self.across = nn.ModuleList(time), nn.ModuleList(across)
        self.norms = nn.ModuleList(build_norm(norm, self.d_model) for _ in self.order)
        self.norm = build_norm(norm, self.d_model)
        self.dropout = nn.Dropout(dropout)
        self.averages = Averages(self.order)

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        """The time mixers before the first token of each variate."""
        return State(tuple(mixer.init_state(batch, max_length) for mixer in self._mixers(self.time)))

    def reset_rows(self, state: State, rows: Tensor) -> State:
        """The state with the marked rows (b,) as before the first token."""
        pairs = zip(self._mixers(self.time), state.time, strict=True)
        return State(tuple(mixer.reset_rows(inner, rows) for mixer, inner in pairs))

    def forward(
        self,
        x: Sequence,
        state: State | None = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
        modality: Tensor | None = None,
    ) -> tuple[Sequence, State]:
        """Many tokens: (b v, t, d) to the same and the states after them."""
        before = (None,) * len(self.time) if state is None else State(*state).time
        after: list[Any] = []

        def layer(i: int, x: Tensor) -> Tensor:
            x, place = self.norms[i](x), self.order[:i].count(self.order[i])
            if self.order[i]:
                lines = by_series(x, self.variates).transpose(1, 2)
                y = self.across[place](lines.flatten(0, 1))[0].view(lines.shape)
                y = y.transpose(1, 2).flatten(0, 1)[: x.shape[0]]
            else:
                y, last = self.time[place](x, before[place], resets=resets, dt=dt)
                after.append(last)
            return self.dropout(y)

        return self.norm(self.averages(x, layer)), State(tuple(after))

    def step(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> tuple[Token, State]:
        """One token of every variate."""
        after: list[Any] = []

        def layer(i: int, x_t: Tensor) -> Tensor:
            x_t, place = self.norms[i](x_t), self.order[:i].count(self.order[i])
            if self.order[i]:
                y_t, _ = self.across[place](by_series(x_t, self.variates))
                return self.dropout(y_t.flatten(0, 1)[: x_t.shape[0]])
            mixer = self._mixers(self.time)[place]
            y_t, last = mixer.step(x_t, State(*state).time[place], dt_t=dt_t)
            after.append(last)
            return self.dropout(y_t)

        return self.norm(self.averages(x_t, layer)), State(tuple(after))

    def advance_(self, x_t: Token, state: State, *, dt_t: Tensor | None = None) -> Token:
        """One token, overwriting the states, which the caller owns."""
        y_t, after = self.step(x_t, state, dt_t=dt_t)
        overwrite(state, after)
        return y_t

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of all mixers inside; the weights of the averages without decay."""
        inside = [*self._mixers(self.time), *self._mixers(self.across)]
        weights = [*self.averages.parameters()]
        return [*(g for m in inside for g in m.parameter_groups()), ParameterGroup(weights, decay=False)]

    def _mixers(self, mixers: nn.ModuleList) -> list[Mixer]:
        return list(mixers)  # type: ignore[arg-type]

    @classmethod
    def example(cls) -> "TSM2":
        """A small instance of two variates."""
        torch.manual_seed(0)
        return cls([MinGRU(6), MinGRU(6)], [Bidirectional(MinGRU(6), MinGRU(6))], 2)


def spec(
    stacks: list[Callable[[int, int | None], dict[str, Any]]],
    d_model: int,
    depth: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The spec after ``tsm2:TIME:VARIATES``; ``tsm2:TIME`` has the same kinds, both ways, along the variates.

    ``options``: ``variates``, how many a series has. Perceptrons that a stack of these kinds would have are
    left out: the variate mixers stand in their place.

    Raises:
        ValueError: more than two patterns, another option, or no number of variates.
    """
    variates = only_variates("tsm2", options)
    if len(stacks) > 2:
        raise ValueError(f"tsm2 takes a pattern along time and one along the variates; got {len(stacks)}.")
    time, common = parts(stacks[0](d_model, depth))
    across, _ = parts(stacks[-1](d_model, len(time)))
    if len(stacks) == 1:
        across = [{"kind": "bidirectional", "ahead": m, "back": m, "convention": "shared"} for m in across]
    return {"time": time, "across": across, "variates": variates, **common}
