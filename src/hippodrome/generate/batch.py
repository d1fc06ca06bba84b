"""Rows that are written together: their states side by side in memory that a token overwrites."""

from collections import OrderedDict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.backbones._rows import overwrite
from hippodrome.generate import rows, tape
from hippodrome.generate.decoder import tensors
from hippodrome.models.base import Model
from hippodrome.ops._elementwise import Unheld

ROOM = 256
"""Slots for keys come in multiples of this, so that there are few sizes of them."""
KEPT = 4
"""Rows of the largest memory that is kept when nobody is left, for whoever comes next."""
RUNS = 32
"""Tokens of a number of rows before one is recorded, which costs as much as several: numbers come and go."""
TAPES = 4
"""Numbers of rows whose tokens are held as recordings at once."""


class Batch:
    """Rows that come and go, each a state that has been read somewhere else.

    The rows in use always lie first, so that a token costs what they cost: a row that comes is written
    behind them, and where one goes the last one is moved into its place. The memory is doubled when it is
    full and halved when three quarters of it are free. Where states hold keys, it has the slots of the row
    that has most, and gets half as many more when those are used. A number of rows that stays gets a
    recording of its token, as in ``Decoder``.

    Args:
        model: in evaluation mode.
        most: rows at most.
    """

    def __init__(self, model: Model, most: int) -> None:
        self.model, self.most = model, most
        self.count = 0
        self.room = 0
        self.slots: int | None = None
        """Tokens that there is room for in a row, where states need any."""
        self._used: list[int] = []
        self._memory: Any = None
        self._views: dict[int, Any] = {}
        self._runs: dict[int, int] = {}
        self._tapes: OrderedDict[int, tape.Replay] = OrderedDict()
        self._unheld = most + 1
        self._device = next(model.parameters()).device

    def add(self, state: Any, used: int = 0, slots: int | None = None) -> int:
        """Copies the state of one row behind the others and returns its place.

        Args:
            state: of one row.
            used: tokens that it has read.
            slots: tokens that it has room for; None where it needs none.

        Raises:
            ValueError: there are as many rows as may be, or the state is of another model.
        """
        if self.count == self.most:
            raise ValueError(f"there is room for {self.most} rows, and all of it is taken.")
        if self._memory is None or (self.count == 0 and not self._same_slots(state)):
            self._take(rows.take(state, [0]), 1)
            self.slots = slots
        elif self.count == self.room:
            self._widen(min(self.most, 2 * self.room), state)
        elif not rows.has_room(self._memory, state):
            self._widen(self.room, state)
        rows.put_(self._memory, [self.count], state)
        if slots is not None:
            self.slots = max(slots, self.slots or 0)
        self._used.append(used)
        self.count += 1
        return self.count - 1

    def remove(self, place: int) -> None:
        """Gives a row's place up; the last row has it from then on."""
        self.count -= 1
        last = self._used.pop()
        if place != self.count:
            self._used[place] = last
            overwrite(self.state(place), self.state(self.count))
        if self.count == 0 and self.room > KEPT:
            self._take(None, 0)
        elif 4 * self.count <= self.room and self.room > KEPT:
            self._narrow(self.room // 2)

    def next(self, ids: list[int]) -> Float[Tensor, "b vocab"]:
        """Logits after one more token of each row."""
        if self.slots is not None and max(self._used) >= self.slots:
            self._more_slots(self.slots)
        self._used = [used + 1 for used in self._used]
        words = torch.tensor(ids, device=self._device)
        replay = self._replay(words)
        return self._advance(words) if replay is None else replay(words)

    def state(self, place: int) -> Any:
        """The state of one row, in the memory that the next token overwrites."""
        return rows.narrow(self._memory, 1, place)

    @property
    def recorded(self) -> tuple[int, ...]:
        """The numbers of rows whose token is held as a recording."""
        return tuple(self._tapes)

    def bytes(self) -> int:
        """The memory of the rows that are written."""
        if self._memory is None or not self.count:
            return 0
        return rows.bytes_of(self._memory)

    def _more_slots(self, slots: int) -> None:
        """Half as many slots again."""
        self.slots = slots + rounded(slots // 2 + 1)
        self._widen(self.room, self.model.init_state(1, self.slots))

    def _advance(self, ids: Tensor) -> Tensor:
        return self.model.advance_(ids, self._view())

    def _view(self) -> Any:
        if self.count not in self._views:
            self._views[self.count] = rows.narrow(self._memory, self.count)
        return self._views[self.count]

    def _replay(self, ids: Tensor) -> tape.Replay | None:
        """The recorded token of so many rows, recorded now if it is worth it; None where there is none."""
        count = self.count
        found = self._tapes.get(count)
        if found is not None:
            if not found.stale():
                self._tapes.move_to_end(count)
                return found
            self._tapes.clear()
            self._runs.clear()
        self._runs[count] = self._runs.get(count, 0) + 1
        if self._runs[count] <= RUNS or count >= self._unheld or not ids.is_cpu:
            return None
        try:
            made = tape.Replay(self._advance, ids, list(tensors(self._view())), self.model)
        except (RuntimeError, Unheld):
            # What stands against it is the size of the state, or the model: either way more rows are no
            # better.
            self._unheld = count
            return None
        self._tapes[count] = made
        if len(self._tapes) > TAPES:
            gone, _ = self._tapes.popitem(last=False)
            self._runs[gone] = 0
        return made

    def _same_slots(self, state: Any) -> bool:
        pairs = zip(tensors(self._memory), tensors(state), strict=True)
        return all(one.shape[1:] == two.shape[1:] and one.dtype == two.dtype for one, two in pairs)

    def _take(self, memory: Any, room: int) -> None:
        self._memory, self.room = memory, room
        # These hold the memory that was there before.
        self._views, self._runs = {}, {}
        self._tapes.clear()

    def _widen(self, room: int, like: Any) -> None:
        """Room for so many rows, each with the slots of ``like`` at least."""
        self._take(self._memory, room)
        for old, other in zip(tensors(self._memory), tensors(like), strict=True):
            # One after the other: the old memory and the new one are never there as a whole.
            _become(old, rows.widen(old, room, other))

    def _narrow(self, room: int) -> None:
        self._take(self._memory, room)
        for old in tensors(self._memory):
            _become(old, old[:room].clone())


def _become(old: Tensor, new: Tensor) -> None:
    """The memory of one tensor in the place of the other's, whose own is free at once."""
    old.set_(new.untyped_storage(), 0, new.shape, new.stride())


def rounded(tokens: int) -> int:
    """A number of slots for so many tokens."""
    return -(-tokens // ROOM) * ROOM
