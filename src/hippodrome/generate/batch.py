"""Rows that are written together: their states side by side in memory that a token overwrites."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.generate import rows
from hippodrome.models.base import Model

LEAST = 1
"""Rows of the smallest memory that is taken."""


class Batch:
    """Rows that come and go, each a state that has been read somewhere else.

    The rows in use always lie first, so that a token costs what they cost: a row that comes is written
    behind them, and where one goes the last one is moved into its place. The memory is doubled when it is
    full and halved when three quarters of it are free. Where states hold keys, it has the slots of the row
    that has most.

    Args:
        model: in evaluation mode.
        most: rows at most.
    """

    def __init__(self, model: Model, most: int) -> None:
        self.model, self.most = model, most
        self.count = 0
        self.room = 0
        self._memory: Any = None
        self._views: dict[int, Any] = {}

    def add(self, state: Any) -> int:
        """Copies the state of one row behind the others and returns its place.

        Raises:
            ValueError: there are as many rows as may be, or the state is of another model.
        """
        if self.count == self.most:
            raise ValueError(f"there is room for {self.most} rows, and all of it is taken.")
        if self._memory is None:
            self._take(rows.widen(rows.take(state, [0]), LEAST), LEAST)
        elif self.count == self.room:
            wider = min(self.most, 2 * self.room)
            self._take(rows.widen(self._memory, wider, state), wider)
        elif not rows.has_room(self._memory, state):
            self._take(rows.widen(self._memory, self.room, state), self.room)
        rows.put_(self._memory, [self.count], state)
        self.count += 1
        return self.count - 1

    def remove(self, place: int) -> None:
        """Gives a row's place up; the last row has it from then on."""
        self.count -= 1
        if self.count == 0:
            self._memory, self.room, self._views = None, 0, {}
            return
        if place != self.count:
            rows.put_(self._memory, [place], rows.take(self._memory, [self.count]))
        if 4 * self.count <= self.room:
            half = self.room // 2
            self._take(rows.take(self._memory, range(half)), half)

    def next(self, ids: list[int]) -> Float[Tensor, "b vocab"]:
        """Logits after one more token of each row."""
        if self.count not in self._views:
            self._views[self.count] = rows.narrow(self._memory, self.count)
        device = next(self.model.parameters()).device
        return self.model.advance_(torch.tensor(ids, device=device), self._views[self.count])

    def state(self, place: int) -> Any:
        """The state of one row, in the memory that the next token overwrites."""
        return rows.narrow(self._memory, 1, place)

    def bytes(self) -> int:
        """The memory that is taken."""
        return 0 if self._memory is None else rows.bytes_of(self._memory)

    def _take(self, memory: Any, room: int) -> None:
        self._memory, self.room, self._views = memory, room, {}
