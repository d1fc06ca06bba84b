"""Which backend each operator of a model uses, and why none that would be faster."""

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch

from hippodrome.ops._door import Choice, watching


class Use(NamedTuple):
    """One way in which an operator was called: where, by which backend, how often, and what refused before.

    ``refusals`` holds (backend, sentence) for each backend that would have been tried first.
    """

    phase: str
    op: str
    backend: str
    calls: int
    refusals: tuple[tuple[str, str], ...]
    forced: bool
    backends: tuple[str, ...]

    def why(self) -> str:
        """In a sentence: why not a backend that stands before this one, or that there is none."""
        if self.forced:
            return "the caller names this backend"
        if self.refusals:
            return " ".join(f"{name}: {sentence}" for name, sentence in self.refusals)
        fast = [name for name in self.backends if name not in ("torch", "reference")]
        return "" if self.backend in fast else "the operator has no compiled backend"


def uses(body: Any, length: int, device: torch.device, dtype: torch.dtype = torch.float32) -> list[Use]:
    """Runs a backbone or mixer forward, backward and one step, and counts what its operators chose.

    The step runs twice, as it is and in place. Below float32 all of it runs under autocast, as training does.
    """
    x = torch.randn(1, length, body.d_model, device=device, requires_grad=True)
    narrow = torch.autocast(device.type, dtype) if dtype != torch.float32 else nullcontext()
    calls: Counter[tuple[str, Choice]] = Counter()

    def seen(phase: str, choices: list[Choice]) -> None:
        calls.update((phase, choice) for choice in choices)

    with narrow:
        with watching() as choices:
            y = body(x)[0]
        seen("forward", choices)
        with watching() as choices:
            y.float().sum().backward()
        seen("backward", choices)
        if body.causal:
            with torch.no_grad():
                state = body.init_state(1, length + 1)
                with watching() as choices:
                    body.step(x[:, -1], state)
            seen("step", choices)
            # What decoding calls: a step that overwrites the state.
            with torch.no_grad(), watching() as choices:
                body.advance_(x[:, -1], body.init_state(1, length + 1))
            seen("step in place", choices)
    return [
        Use(phase, c.op, c.backend, count, c.refusals, c.forced, c.backends)
        for (phase, c), count in calls.items()
    ]


def lines(found: list[Use]) -> Iterator[list[str]]:
    """The cells of a table: phase, operator, backend, calls, why none that is faster."""
    for use in found:
        yield [use.phase, use.op, use.backend, str(use.calls), use.why()]
