"""One token after the other through a model, on a state that the loop owns."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hippodrome.generate import graph, tape
from hippodrome.models.base import Model


class Decoder:
    """Runs a model one token at a time from a state, which is copied once and overwritten from then on.

    A state that grows with its tokens cannot be overwritten; the decoder then goes by ``step``. After the
    first few tokens the others are replays of one that was recorded, as a graph on a CUDA device and as a
    tape on the CPU, until somebody writes to the model's parameters or puts others in their place. All tokens
    must have as many rows.

    Args:
        model: in evaluation mode.
        state: after the tokens so far; it stays as it is.
        fixed: whether the state has room for all tokens to come. Otherwise the model is asked whether its
            states grow.
    """

    uncaptured: str | None = None
    """Why tokens run as separate calls and are no replays; None while nothing stands against it."""

    def __init__(self, model: Model, state: tuple, *, fixed: bool = False) -> None:
        self.model = model
        self.in_place = fixed or not grows(model)
        self.state = owned(state) if self.in_place else state
        self._run = 0
        self._replay: graph.Replay | tape.Replay | None = None

    @torch.no_grad()
    def next(self, ids: Int[Tensor, "b"]) -> Float[Tensor, "b vocab"]:
        """Logits after one more token of each row."""
        if self._replay is None and self.uncaptured is None:
            self.uncaptured = self._consider(ids)
        if self._replay is not None and self._replay.stale():
            # Somebody trains, converts or rounds the model meanwhile: what was recorded no longer holds.
            self._replay = None
            self.uncaptured = "a parameter was written to or replaced after a token was recorded"
        if self._replay is not None:
            return self._replay(ids)
        if self.in_place:
            return self._advance(ids)
        logits, self.state = self.model.step(ids, self.state)
        return logits

    def _advance(self, ids: Tensor) -> Tensor:
        return self.model.advance_(ids, self.state)

    def _consider(self, ids: Tensor) -> str | None:
        """Record a token after the first few have run, where that is possible; else why it is not."""
        how = tape if graph.refusal(ids, self.in_place) is not None and ids.is_cpu else graph
        refused = how.refusal(ids, self.in_place)
        if refused is None and self._run == how.WARM_UP:
            try:
                self._replay = (
                    graph.Replay(self._advance, ids, self.model)
                    if how is graph
                    else tape.Replay(self._advance, ids, list(tensors(self.state)), self.model)
                )
            except (RuntimeError, tape.Unheld) as problem:
                words = " ".join(str(problem).split())[:300]
                refused = f"a token of this model could not be recorded ({words})"
        self._run += 1
        return refused


def owned(state: Any) -> Any:
    """A copy of a state, nested as it is, in memory of its own that lies in order."""
    if isinstance(state, Tensor):
        return state.detach().clone(memory_format=torch.contiguous_format)
    parts = [owned(x) for x in state]
    return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)


def tensors(state: Any) -> Iterator[Tensor]:
    """The tensors of a state, however nested."""
    if isinstance(state, Tensor):
        yield state
    else:
        for part in state:
            yield from tensors(part)


def grows(model: Model) -> bool:
    """Whether some state of the model gets larger with each token where no bound on them is known."""
    pairs = zip(tensors(model.init_state(1)), tensors(model.init_state(1, 3)), strict=True)
    return any(free.shape != bounded.shape for free, bounded in pairs)
