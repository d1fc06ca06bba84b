"""One thing worth remembering in a long text: a pass key, or a fact, at a place of your choice."""

from collections.abc import Callable

import numpy as np

from hippodrome.data._drawn import Drawn, asked_at_the_end, drawn_task
from hippodrome.data.base import Task
from hippodrome.data.phone_book import distinct_names, syllables

_BLOCK = (
    "The grass is green. ",
    "The sky is blue. ",
    "The sun is yellow. ",
    "Here we go. ",
    "There and back again. ",
)
_WHO = (
    "The miller",
    "A sailor",
    "My aunt",
    "The clerk",
    "An old friend",
    "The gardener",
    "Nobody",
    "A child",
)
_DID = ("walked along", "spoke about", "waited near", "painted", "remembered", "measured", "passed", "drew")
_WHAT = (
    "the river",
    "a bridge",
    "the market",
    "some apples",
    "the harbour",
    "a letter",
    "the hills",
    "a door",
)
_WHEN = ("in the morning", "before the rain", "last winter", "at noon", "on a Sunday", "after supper")

Said = Callable[[np.random.Generator], tuple[str, str, str]]
"""Draws what is hidden: its sentence, the question, the answer."""


def open_passkey(
    *, length: int = 1024, place: float | None = None, digits: int = 5, count: int = 20000, seed: int = 0
) -> Task:
    """A pass key in a text that repeats itself, and the question for it at the end.

    Mohtashami and Jaggi 2023, "Landmark attention: random-access infinite context length for transformers",
    arXiv 2305.16300. Tokens are bytes; all digits are asked for. A table of places by lengths is a loop over
    ``hippodrome evaluate RUN -s data.place=... -s data.length=...``.

    Args:
        length: bytes of a sequence, question and answer included.
        place: where in the text the key is said, 0 at its start and 1 at its end; drawn if left out.
        digits: of the key.
        count: train sequences; a tenth as many validate, and as many test.
        seed: of the sequences.

    Raises:
        ValueError: a length that does not hold the key and the question, a place outside 0 ... 1, no digits,
            or too few sequences.
    """
    if not 1 <= digits <= 18:
        raise ValueError(f"passkey: a key has 1 to 18 digits; got {digits}. Take 5.")

    def said(random: np.random.Generator) -> tuple[str, str, str]:
        key = str(random.integers(10 ** (digits - 1), 10**digits))
        line = f"The pass key is {key}. Remember it. {key} is the pass key. "
        return line, "What is the pass key? The pass key is ", key

    def filler(random: np.random.Generator, size: int) -> list[str]:
        start, count = random.integers(len(_BLOCK)), size // min(map(len, _BLOCK)) + 1
        return [_BLOCK[(start + i) % len(_BLOCK)] for i in range(count)]

    return _hidden("passkey", said, filler, length, place, range(48, 58), count, seed)


def open_needle(*, length: int = 1024, place: float | None = None, count: int = 20000, seed: int = 0) -> Task:
    """A fact in a text of other sentences, and the question for it at the end: a needle in a haystack.

    The fact is the secret word, four syllables, of a person; person, word and text are drawn. Tokens are
    bytes; the whole word is asked for, and nothing but the same letters is right.

    Args:
        length: bytes of a sequence, question and answer included.
        place: where in the text the fact is said, 0 at its start and 1 at its end; drawn if left out.
        count: train sequences; a tenth as many validate, and as many test.
        seed: of the sequences.

    Raises:
        ValueError: a length that does not hold the fact and the question, a place outside 0 ... 1, or too few
            sequences.
    """

    def said(random: np.random.Generator) -> tuple[str, str, str]:
        (name,), word = distinct_names(random, 1), "".join(syllables(random, 4))
        line = f"The secret word of {name} is {word}. "
        return line, f"What is the secret word of {name}? The secret word of {name} is ", word

    lists = (_WHO, _DID, _WHAT, _WHEN)
    shortest = sum(min(map(len, words)) + 1 for words in lists)

    def filler(random: np.random.Generator, size: int) -> list[str]:
        count = size // shortest + 1
        columns = [random.integers(len(words), size=count).tolist() for words in lists]
        rows = zip(*columns, strict=True)
        return [" ".join(words[i] for words, i in zip(lists, row, strict=True)) + ". " for row in rows]

    return _hidden("needle", said, filler, length, place, range(97, 123), count, seed)


def _hidden(
    name: str,
    said: Said,
    filler: Callable[[np.random.Generator, int], list[str]],
    length: int,
    place: float | None,
    answers: range,
    count: int,
    seed: int,
) -> Task:
    """The task of both: what is said stands between sentences of the filler, whose start is cut to fit."""
    if place is not None and not 0 <= place <= 1:
        raise ValueError(
            f"{name}: a place in the text is a number from 0, its start, to 1, its end; got {place}. Give "
            "one, or leave it out."
        )
    probe = np.random.default_rng(seed)
    needed = max(sum(map(len, said(probe))) for _ in range(64))
    if length < needed + 100:
        raise ValueError(
            f"{name} hides a sentence in a text and asks for it, which takes some {needed + 100} bytes; got "
            f"length {length}. Take a longer one."
        )

    def draw(random: np.random.Generator) -> Drawn:
        line, question, answer = said(random)
        where = random.random() if place is None else place
        size = length + 1 - len(line) - len(question) - len(answer)
        sentences = filler(random, size)
        text = "".join(sentences)
        cut = len(text) - size  # of the first sentences, so that the text ends with a whole one
        ends = np.cumsum([*map(len, sentences)]) - cut
        ends = np.append(0, ends[ends > 0])  # between two sentences, or before the first
        at = int(ends[np.abs(ends - where * size).argmin()])
        text = text[cut:]
        whole = text[:at] + line + text[at:] + question + answer
        tokens = np.frombuffer(whole.encode(), dtype=np.uint8)
        answered = np.frombuffer(answer.encode(), dtype=np.uint8)
        return Drawn(tokens[:-1], asked_at_the_end(tokens[:-1], answered))

    return drawn_task(
        name,
        [(draw, count)],
        seed,
        vocab_size=256,
        answers=answers,
        asked="what one sentence of the text said",
        whole=True,
        details={"length": length, "place": "drawn" if place is None else place},
    )
