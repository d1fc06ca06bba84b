"""Mixers side by side: two or more read the same tokens, and what they give is added."""

from collections import namedtuple
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from hippodrome.mixers.attention import Attention
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.shapes import Resets, Sequence, TimeSteps, Token


class Parallel(Mixer):
    """y = sum_i s_i f_i(r_i x): mixers f_i with factors s_i behind and r_i before them.

    Zuo et al. 2025, "Falcon-H1: a family of hybrid-head language models", arXiv 2507.22448, where attention
    and Mamba-2 read one normalized input; the factors are those of its configuration. The state is the
    states of all mixers one after the other, their fields numbered.

    Args:
        mixers: two or more, causal, of one width.
        scales: s, one for each mixer; None for ones.
        scales_in: r, likewise.

    Raises:
        ValueError: fewer than two mixers, different widths, one that reads later tokens, or a list of factors
            of another length.
    """

    def __init__(
        self,
        mixers: list[Mixer],
        scales: list[float] | None = None,
        scales_in: list[float] | None = None,
    ) -> None:
        super().__init__()
        widths = sorted({mixer.d_model for mixer in mixers})
        if len(mixers) < 2 or len(widths) != 1:
            raise ValueError(
                "Side by side stand two mixers or more, all of one width; got "
                f"{len(mixers)} of {' and '.join(map(str, widths)) or 'no'} channels."
            )
        later = [type(mixer).__name__ for mixer in mixers if not mixer.causal]
        if later or any(mixer.point_channels is not None for mixer in mixers):
            raise ValueError(
                "Mixers side by side read a sequence and its past alone; got "
                f"{later[0] if later else 'one over a grid of points'}. Take causal ones, mamba2 say."
            )
        for name, factors in (("scales", scales), ("scales_in", scales_in)):
            if factors is not None and len(factors) != len(mixers):
                raise ValueError(
                    f"{name} has a factor for each mixer; got {len(factors)} for {len(mixers)} mixers."
                )
        self.d_model = widths[0]
        # Known by instance: what all of the mixers can.
        self.accepts_dt = all(mixer.accepts_dt for mixer in mixers)  # type: ignore[misc]
        self.accepts_resets = all(mixer.accepts_resets for mixer in mixers)  # type: ignore[misc]
        self.recomputable = all(mixer.recomputable for mixer in mixers)  # type: ignore[misc]
        self.accepts_modality = any(mixer.accepts_modality for mixer in mixers)  # type: ignore[misc]
        self.mixers = nn.ModuleList(mixers)
        self.scales = [1.0] * len(mixers) if scales is None else list(scales)
        self.scales_in = [1.0] * len(mixers) if scales_in is None else list(scales_in)

    @property
    def out_proj(self) -> nn.ModuleList:
        """The maps that write into the residual stream."""
        maps = [getattr(mixer, "out_proj", None) for mixer in self._all()]
        return nn.ModuleList(one for one in maps if isinstance(one, nn.Module))

    def init_state(self, batch: int, max_length: int | None = None) -> Any:
        """The states of all mixers before the first token, one after the other."""
        return _joined([mixer.init_state(batch, max_length) for mixer in self._all()])

    def reset_rows(self, state: Any, rows: Tensor) -> Any:
        """The state with the marked rows (b,) as before the first token."""
        pairs = zip(self._all(), _parts(state), strict=True)
        return _joined([mixer.reset_rows(part, rows) for mixer, part in pairs])

    def step(
        self, x_t: Token, state: Any, *, dt_t: Tensor | None = None, modality_t: Tensor | None = None
    ) -> tuple[Token, Any]:
        """One token through each mixer."""
        self.refuse_dt(dt_t)
        outputs, after = [], []
        for i, (mixer, part) in enumerate(zip(self._all(), _parts(state), strict=True)):
            told = _told(mixer, modality_t=modality_t)
            y_t, last = mixer.step(self._input(i, x_t), part, dt_t=dt_t, **told)
            outputs.append(y_t)
            after.append(last)
        return self._sum(outputs), _joined(after)

    def advance_(
        self, x_t: Token, state: Any, *, dt_t: Tensor | None = None, modality_t: Tensor | None = None
    ) -> Token:
        """One token, overwriting a state that its caller owns."""
        self.refuse_dt(dt_t)
        return self._sum(
            [
                mixer.advance_(self._input(i, x_t), part, dt_t=dt_t, **_told(mixer, modality_t=modality_t))
                for i, (mixer, part) in enumerate(zip(self._all(), _parts(state), strict=True))
            ]
        )

    def forward(
        self,
        x: Sequence,
        state: Any = None,
        *,
        resets: Resets | None = None,
        dt: TimeSteps | None = None,
        modality: Tensor | None = None,
    ) -> tuple[Sequence, Any]:
        """Many tokens through each mixer."""
        self.check_call(x, state, resets, dt)
        parts = [None] * len(self.mixers) if state is None else _parts(state)
        outputs, after = [], []
        for i, (mixer, part) in enumerate(zip(self._all(), parts, strict=True)):
            told = _told(mixer, modality=modality)
            y, last = mixer(self._input(i, x), part, resets=resets, dt=dt, **told)
            outputs.append(y)
            after.append(last)
        return self._sum(outputs), _joined(after)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of all mixers."""
        return [group for mixer in self._all() for group in mixer.parameter_groups()]

    def _all(self) -> list[Any]:
        return list(self.mixers)

    def _input(self, i: int, x: Tensor) -> Tensor:
        return x if self.scales_in[i] == 1.0 else x * self.scales_in[i]

    def _sum(self, outputs: list[Tensor]) -> Tensor:
        y = outputs[0] if self.scales[0] == 1.0 else outputs[0] * self.scales[0]
        for output, scale in zip(outputs[1:], self.scales[1:], strict=True):
            y = torch.add(y, output, alpha=scale)
        return y

    @classmethod
    def example(cls) -> "Parallel":
        """A small instance."""
        return cls([MinGRU(8), Attention(8, heads=2)], [0.5, 2.0], [1.0, 0.75])


def _told(mixer: Mixer, **named: Tensor | None) -> dict[str, Any]:
    """The modalities, for a mixer that takes them where there are any."""
    return {k: v for k, v in named.items() if v is not None} if mixer.accepts_modality else {}


@cache
def _state_type(parts: tuple[Any, ...]) -> Any:
    """The type of the states of these types one after the other; it knows which they are."""
    fields = [f"{field}_{i}" for i, part in enumerate(parts) for field in part._fields]
    make: Any = namedtuple
    made = make("State", fields)
    made.parts = parts
    # The type is no name of this module, so a copy in another process is made from its parts.
    made.__reduce__ = lambda state: (_joined, (_parts(state),))
    return made


def _joined(states: list[Any]) -> Any:
    """States as one: a NamedTuple of all their tensors."""
    return _state_type(tuple(map(type, states)))(*(tensor for state in states for tensor in state))


def _parts(state: Any) -> list[Any]:
    """The states that one was joined from."""
    found, at = [], 0
    for part in type(state).parts:
        found.append(part(*state[at : at + len(part._fields)]))
        at += len(part._fields)
    return found
