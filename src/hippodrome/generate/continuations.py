"""Prompts that are continued together, each row as it would be alone, and their text piece by piece."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from hippodrome.generate import rows
from hippodrome.generate.constraint import Constraint
from hippodrome.generate.decoder import Decoder
from hippodrome.generate.decoding import StopText, TextStream
from hippodrome.generate.prompts import CHUNK, Prompts, check_ids, lengths_of, prefill
from hippodrome.generate.sampling import Chooser, Chosen, Sampler
from hippodrome.models.base import Model
from hippodrome.text.folder import known_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FinishReason = Literal["stop", "length"]
"""Why a row ended: by a token, a text or a constraint that ends it, or because it was to hold no more."""


class Piece(NamedTuple):
    """What a row goes on with: whole characters, and the tokens since the piece before."""

    text: str
    ids: tuple[int, ...]
    """The tokens, one that ended the row among them."""
    logprobs: tuple[Chosen, ...]
    """The same with their log-probabilities; empty where none were asked for."""
    finish_reason: FinishReason | None
    """None while the row goes on. A row's last piece may have no text."""
    row: int
    """The number of the prompt."""


class Continuations:
    """Rows under way: the prompts are read once, then each row chooses a token a step.

    Iterating gives, for each step, what each row chose: None for rows that had ended before. A row that ends
    leaves the batch once half of those that are in it have ended. The model is put into evaluation mode until
    the end of the iteration, which can be had once.

    Args:
        model: a language model.
        prompts: token ids, of rows of one length or of each row.
        choosers: one for each row.
        max_new_tokens: of each row; None for no end.
        ends: token ids that end a row.
        state: that the prompts go on from; it stays as it is.
        fixed: whether that state has room for all tokens to come, prompts included, so that it can be
            overwritten. Only states that grow with their tokens ask this.
        chunk: tokens of a prompt that are read at once.

    Raises:
        ValueError: a prompt without a token or with one that the model does not have, another number of
            choosers, or a number out of its range.
    """

    state: Any = None
    """After all tokens but the newest of each row, for the rows in ``held``; None before the first step."""
    held: list[int]
    """The numbers of the rows whose states ``state`` has, in its order."""

    def __init__(
        self,
        model: Model,
        prompts: Prompts,
        choosers: Sequence[Chooser],
        *,
        max_new_tokens: int | None = 256,
        ends: Collection[int] = (),
        state: tuple | None = None,
        fixed: bool = False,
        chunk: int = CHUNK,
    ) -> None:
        lengths = lengths_of(prompts)
        check_ids(prompts, vocabulary(model))
        check_count(max_new_tokens)
        if len(choosers) != len(lengths):
            raise ValueError(f"each row has a chooser; got {len(choosers)} for {len(lengths)} prompts")
        self.model, self.prompts, self.choosers = model, prompts, choosers
        self.max_new_tokens, self.ends, self.chunk = max_new_tokens, frozenset(ends), chunk
        self.reasons: list[FinishReason | None] = [None] * len(lengths)
        """Why each row ended; None while it goes on."""
        self.held = list(range(len(lengths)))
        # Without an end to come, states that grow do grow.
        self._room = None if max_new_tokens is None else max(lengths) + max_new_tokens
        self._begin, self._fixed = state, (fixed if state is not None else self._room is not None)

    def end(self, row: int) -> None:
        """Ends a row, whose text has met what ends it."""
        self.reasons[row] = self.reasons[row] or "stop"

    def __iter__(self) -> Iterator[list[Chosen | None]]:
        for row, chooser in enumerate(self.choosers):
            if self.max_new_tokens == 0:
                self.reasons[row] = "length"
            elif _complete(chooser):
                self.reasons[row] = "stop"
        with evaluation(self.model):
            if None not in self.reasons:
                return
            logits, self.state = self._read()
            decoder = Decoder(self.model, self.state, fixed=self._fixed)
            made = 0
            while True:
                self.state = decoder.state
                made += 1
                chosen = self._step(logits.cpu(), made)
                yield chosen
                going = [place for place, row in enumerate(self.held) if self.reasons[row] is None]
                if not going:
                    return
                ids = [found.id if (found := chosen[row]) is not None else 0 for row in self.held]
                if 2 * len(going) <= len(self.held):
                    decoder = Decoder(self.model, rows.take(decoder.state, going), fixed=self._fixed)
                    self.held, ids = [self.held[place] for place in going], [ids[place] for place in going]
                logits = decoder.next(torch.tensor(ids, device=logits.device))

    def _read(self) -> tuple[Tensor, Any]:
        """The logits after the prompts, and the state. A prompt that several rows have is read once."""
        options: dict[str, Any] = {"chunk": self.chunk, "max_length": self._room}
        prompts = [tuple(ids.tolist()) for ids in self.prompts]
        numbers = {ids: number for number, ids in enumerate(dict.fromkeys(prompts))}
        if self._begin is not None or len(numbers) == len(prompts):
            return prefill(self.model, self.prompts, self._begin, **options)
        logits, state = prefill(self.model, [torch.tensor(ids) for ids in numbers], **options)
        places = [numbers[ids] for ids in prompts]
        return logits[places], rows.take(state, places)

    def _step(self, logits: Tensor, made: int) -> list[Chosen | None]:
        """What each row that goes on chooses, and which rows end with it."""
        chosen: list[Chosen | None] = [None] * len(self.choosers)
        for place, row in enumerate(self.held):
            if self.reasons[row] is None:
                found = chosen[row] = self.choosers[row].choose(logits[place])
                if found.id in self.ends or _complete(self.choosers[row]):
                    self.reasons[row] = "stop"
                elif made == self.max_new_tokens:
                    self.reasons[row] = "length"
        return chosen


def pieces(
    model: Model,
    tokenizer: "Tokenizer",
    prompts: Sequence[str] | Sequence[Sequence[int]],
    *,
    sampler: Sampler = Sampler(),  # noqa: B008
    max_new_tokens: int | None = 256,
    seed: int | Sequence[int] | None = None,
    ends: Collection[int] = (),
    stops: Sequence[str] = (),
    constraints: Sequence[Constraint | None] | None = None,
    logprobs: int | None = None,
    state: tuple | None = None,
    fixed: bool = False,
    chunk: int = CHUNK,
    apart: bool = False,
) -> Iterator[Piece]:
    """Continues texts together, yielding pieces of all rows as they come.

    Each row's text is what it would be alone: rows share nothing but the time that a step takes.

    Args:
        model: a language model.
        tokenizer: of its tokens; ids that it does not know are not written.
        prompts: texts, or token ids.
        sampler: how each row chooses.
        max_new_tokens: of each row; None for no end.
        seed: of the first row, and the rows after it have the numbers that follow; or one for each row; None
            takes them by chance.
        ends: token ids that end a row; they are not part of its text.
        stops: strings that end a row before them.
        constraints: what each row's text must keep to.
        logprobs: how many of the likeliest tokens are told beside each; None tells no log-probabilities.
        state: as in ``Continuations``, as are ``fixed`` and ``chunk``.
        apart: whether a row's text stands by itself, as an answer does, where some tokenizers leave a space
            at its beginning out; otherwise it goes on in the prompt.

    Raises:
        ValueError: an empty prompt, or an argument out of its range.
    """
    encoded = [tokenizer.encode(p).ids if isinstance(p, str) else list(p) for p in prompts]
    if [] in encoded:
        raise ValueError("the prompt is empty: give at least one character to go on from")
    known = known_ids(tokenizer)
    bound: Sequence[Constraint | None] = [None] * len(encoded) if constraints is None else constraints
    if len(bound) != len(encoded):
        raise ValueError(f"each row has a constraint or None; got {len(bound)} for {len(encoded)} prompts")
    choosers = [
        Chooser(
            sampler,
            vocab_size=min(known, vocabulary(model)),
            seed=number,
            prompt=prompt,
            constraint=constraint,
            logprobs=logprobs,
        )
        for prompt, number, constraint in zip(encoded, seeds(seed, len(encoded)), bound, strict=True)
    ]
    going = Continuations(
        model,
        [torch.tensor(ids) for ids in encoded],
        choosers,
        max_new_tokens=max_new_tokens,
        ends=ends,
        state=state,
        fixed=fixed,
        chunk=chunk,
    )
    texts = [_Text(tokenizer, stops, logprobs is not None, [] if apart else ids) for ids in encoded]
    return _spelled(going, texts)


class _Text:
    """A row on its way from tokens to pieces."""

    def __init__(
        self, tokenizer: "Tokenizer", stops: Sequence[str], told: bool, before: Sequence[int]
    ) -> None:
        self.stream, self.stop, self.told = TextStream(tokenizer, before), StopText(stops), told
        self.finished = False
        self._shown = ""
        self._tokens: list[Chosen] = []

    def push(self, token: Chosen, shown: bool) -> None:
        """One more token; one that is not shown counts all the same."""
        self._tokens.append(token)
        if shown:
            self._shown += self.stop.push(self.stream.push(token.id))[0]

    def finish(self) -> bool:
        """No more tokens. Whether a stop string ended the text: the rest that comes now may hold one."""
        self.finished = True
        self._shown += self.stop.push(self.stream.flush())[0] + self.stop.flush()
        return self.stop.met

    def piece(self, row: int, reason: FinishReason | None) -> Piece | None:
        """What has come since the last piece; None where there is nothing to show."""
        if not self._shown and reason is None:
            return None
        tokens, shown = tuple(self._tokens), self._shown
        self._tokens, self._shown = [], ""
        ids = tuple(token.id for token in tokens)
        return Piece(shown, ids, tokens if self.told else (), reason, row)


def _spelled(going: Continuations, texts: list[_Text]) -> Iterator[Piece]:
    steps = iter(going)
    while True:
        chosen = next(steps, None)
        for row, text in enumerate(texts):
            if text.finished:
                continue
            token = None if chosen is None else chosen[row]
            if token is not None:
                text.push(token, token.id not in going.ends)
                if text.stop.met:
                    going.end(row)
            reason = going.reasons[row]
            if reason is not None and text.finish():
                reason = "stop"
            piece = text.piece(row, reason)
            if piece is not None:
                yield piece
        if chosen is None:
            return


def seeds(seed: int | Sequence[int] | None, count: int) -> list[int | None]:
    """A seed for each row: that of the first and the whole numbers after it, or those that are given.

    Raises:
        ValueError: seeds for another number of rows.
    """
    if seed is None:
        return [None] * count
    if isinstance(seed, int):
        return [seed + row for row in range(count)]
    if len(seed) != count:
        raise ValueError(f"seed is one for the first row, or one for each of {count}; got {len(seed)}")
    return list(seed)


def vocabulary(model: Model) -> int:
    """How many token ids a language model has logits for."""
    return int(model.vocab_size)  # type: ignore[arg-type]


def check_count(max_new_tokens: int | None) -> None:
    """Raises ValueError for a number of tokens that cannot be."""
    if max_new_tokens is not None and max_new_tokens < 0:
        raise ValueError(f"max_new_tokens is 0 or more, or None for no end; got {max_new_tokens}")


@contextmanager
def evaluation(model: Model) -> Iterator[None]:
    """The model without dropout; the mode that it was in comes back at the end."""
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)


def _complete(chooser: Chooser) -> bool:
    return chooser.constraint is not None and chooser.constraint.done
