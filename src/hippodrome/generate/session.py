"""A text under way: read and written by turns, left at any point and gone back to, saved and loaded."""

from collections.abc import Collection, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.generate import snapshot
from hippodrome.generate.continuations import FinishReason, check_count, evaluation
from hippodrome.generate.decoder import Decoder
from hippodrome.generate.decoding import StopText, TextStream
from hippodrome.generate.prompts import CHUNK, prefill
from hippodrome.generate.room import with_room
from hippodrome.generate.sampling import Chooser, Chosen
from hippodrome.models.base import Model

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Point(NamedTuple):
    """A place in a text. It is a value: going on from it leaves it as it is."""

    ids: tuple[int, ...]
    """All tokens before it."""
    state: tuple
    """After them, of one row; where it grows with its tokens, with no room to spare."""
    logits: Float[Tensor, "1 vocab"]
    """After the last of them."""


class Session:
    """One text of a model, from nothing.

    Args:
        model: a language model.
        tokenizer: of its tokens.
        chunk: tokens that are read at once: memory is bound by this.
    """

    point: Point | None = None
    """Where the text is; None before the first token. Setting it goes there."""
    chosen: list[Chosen]
    """What the last ``write`` chose, a token that ended it included."""
    reason: FinishReason | None = None
    """Why the last ``write`` ended; None where it was left before its end."""

    def __init__(self, model: Model, tokenizer: "Tokenizer", *, chunk: int = CHUNK) -> None:
        self.model, self.tokenizer, self.chunk = model, tokenizer, chunk
        self.chosen = []
        self._wrote: tuple[tuple[int, ...], int] = ((), 0)
        """The tokens of a point, and how many at their end the model wrote with none read between."""

    @property
    def ids(self) -> tuple[int, ...]:
        """All tokens so far."""
        return () if self.point is None else self.point.ids

    def read(self, ids: Sequence[int]) -> None:
        """Reads tokens, none perhaps."""
        for start in range(0, len(ids), self.chunk):
            piece = list(ids[start : start + self.chunk])
            with evaluation(self.model):
                state = None if self.point is None else self.point.state
                logits, after = prefill(self.model, torch.tensor([piece]), state, chunk=self.chunk)
            self.point = Point((*self.ids, *piece), after, logits)

    def write(
        self,
        chooser: Chooser,
        *,
        max_new_tokens: int | None = 256,
        ends: Collection[int] = (),
        stops: Sequence[str] = (),
        apart: bool = False,
    ) -> Generator[str, None, None]:
        """Writes on, yielding the text that each token adds, which may be none.

        A token of ``ends`` is not part of the text; a string of ``stops`` is, but is not shown. Whoever stops
        asking leaves the text where it is. ``max_new_tokens=None`` goes on without end. What is written goes
        on in the text that was read, or stands ``apart`` as an answer does: there some tokenizers leave a
        space at the beginning out.

        Raises:
            ValueError: nothing has been read, or a number out of its range.
        """
        check_count(max_new_tokens)
        stop = StopText(stops)
        if self.point is None:
            raise ValueError("the prompt is empty: give at least one character to go on from")
        stream = TextStream(self.tokenizer, () if apart else self.point.ids)
        return self._write(self.point, chooser, max_new_tokens, frozenset(ends), stream, stop)

    def _write(
        self,
        point: Point,
        chooser: Chooser,
        most: int | None,
        ends: frozenset[int],
        stream: TextStream,
        stop: StopText,
    ) -> Generator[str, None, None]:
        ids, read, before = list(point.ids), len(point.ids), self._written
        logits, device = point.logits, point.logits.device
        self.chosen, self.reason = [], None
        room = None if most is None else read + most
        with evaluation(self.model):
            decoder = Decoder(
                self.model, with_room(self.model, point.state, read, room), fixed=room is not None
            )
            try:
                while self.reason is None:
                    if chooser.constraint is not None and chooser.constraint.done:
                        self.reason = "stop"
                    elif most is not None and len(ids) - read >= most:
                        self.reason = "length"
                    else:
                        token = chooser.choose(logits[0])
                        self.chosen.append(token)
                        if token.id in ends:
                            self.reason = "stop"
                            break
                        # Read at once, so that the state is that of the text whenever it is left.
                        logits = decoder.next(torch.tensor([token.id], device=device))
                        ids.append(token.id)
                        text, met = stop.push(stream.push(token.id))
                        self.reason = "stop" if met else None
                        yield text
            finally:
                if len(ids) > read:
                    state = with_room(self.model, decoder.state, len(ids), None)
                    self.point = Point(tuple(ids), state, logits)
                    self._wrote = (self.point.ids, before + len(ids) - read)
        text, met = stop.push(stream.flush())
        self.reason = "stop" if met else self.reason
        yield text + stop.flush()

    def save(
        self,
        path: str | Path,
        *,
        spec: Mapping[str, Any] | None = None,
        chooser: Chooser | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes a snapshot of where the text is; with what it was chosen by, so that chance goes on too.

        Raises:
            ValueError: nothing has been read.
            OSError: the file cannot be written.
        """
        if self.point is None:
            raise ValueError("there is nothing to save yet: no token has been read.")
        ids, state, logits = self.point
        found = snapshot.Snapshot(
            state,
            torch.tensor([ids]),
            logits,
            written=self._written,
            seed=None if chooser is None else chooser.seed,
            drawn=0 if chooser is None else chooser.drawn,
            notes=notes or {},
        )
        snapshot.save(path, self.model, found, spec=spec)

    def load(self, path: str | Path, *, spec: Mapping[str, Any] | None = None) -> snapshot.Snapshot:
        """Goes to where a snapshot was saved, and returns it.

        Raises:
            ValueError: as ``snapshot.load``, or a snapshot of several rows.
        """
        found = snapshot.load(path, self.model, spec=spec)
        if found.logits is None or len(found.ids) != 1 or not found.ids.shape[1]:
            raise ValueError(
                f"{path} holds {len(found.ids)} texts, and one with its logits can be gone on from here. "
                "Save it from one text."
            )
        self.point = Point(tuple(found.ids[0].tolist()), found.state, found.logits)
        self._wrote = (self.point.ids, found.written)
        self.chosen, self.reason = [], None
        return found

    @property
    def _written(self) -> int:
        ids, count = self._wrote
        return count if ids is self.ids else 0
