"""What is asked of the engine, and what it answers: values alone, with no model in them."""

from collections.abc import Callable
from typing import NamedTuple

from hippodrome.generate.constraint import Constraint
from hippodrome.generate.sampling import Sampler


class Request(NamedTuple):
    """A prompt and how it is to be continued.

    Every row has a seed of its own: ``seed`` plus the row's number, or one that is drawn.
    """

    ids: tuple[int, ...]
    """The prompt, at least one token."""
    max_tokens: int
    """New tokens at most, of each row. With 0 the prompt is read and nothing is written."""
    sampler: Sampler = Sampler()
    rows: int = 1
    """Continuations, independent of each other."""
    seed: int | None = None
    stops: tuple[str, ...] = ()
    """Strings that end a row; neither they nor what follows is shown."""
    ends: frozenset[int] = frozenset()
    """Tokens that end a row, and are not shown."""
    logprobs: int | None = None
    """How many of the likeliest tokens are told at each place; None tells no log-probabilities at all."""
    prompt_logprobs: bool = False
    """Whether those of the prompt's tokens are told too."""
    constraint: Constraint | None = None
    """What every row's text must be; each row takes a copy."""
    seconds: float | None = None
    """From the moment it is handed in; later it fails."""
    apart: bool = False
    """Whether a row's text stands by itself, as an answer does, where some tokenizers leave a space out."""


class Spelled(NamedTuple):
    """A token with its log-probability by the model and the likeliest ones at its place."""

    id: int
    logprob: float | None
    """In nats; None for the first token of a prompt, which nothing came before."""
    top: tuple[tuple[int, float], ...]
    offset: int
    """Characters of the row's text before it."""


class Read(NamedTuple):
    """The prompt has been read."""

    cached: int
    """Tokens of it whose state was at hand."""
    tokens: tuple[Spelled, ...]
    """Where the log-probabilities of a prompt were asked for; their offsets are 0."""


class Written(NamedTuple):
    """More text of a row, and where log-probabilities were asked for its tokens."""

    row: int
    text: str
    tokens: tuple[Spelled, ...]


class Ended(NamedTuple):
    """The end of a row."""

    row: int
    reason: str
    """"stop" after an end token, a stop string or a finished constraint, "length" after ``max_tokens``."""
    tokens: int
    """How many the row took, an end token counted."""


class Failed(NamedTuple):
    """The end of a request that could not be answered: nothing follows it."""

    kind: str
    """"deadline", "closing", "invalid" (the request's own fault) or "internal"."""
    message: str


Event = Read | Written | Ended | Failed
Notify = Callable[[Event], None]
"""Called on the engine's own thread, so it only hands the event on. It must not raise."""
