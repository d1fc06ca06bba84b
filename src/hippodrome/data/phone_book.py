"""A phone book as text: which number was it? And the names of people there are none of."""

import numpy as np

from hippodrome.data._drawn import Drawn, drawn_task
from hippodrome.data.base import Task
from hippodrome.data.text import IGNORED

_CONSONANTS, _VOWELS = "bdfghjklmnprstvz", "aeiou"
_DIGITS = range(ord("0"), ord("9") + 1)


def open_phone_book(
    *,
    entries: int = 20,
    digits: int = 7,
    examples: int = 2,
    question_first: bool = False,
    count: int = 20000,
    seed: int = 0,
) -> Task:
    """Lines of names with their numbers, some worked look-ups, then one of the other names: its number?

    Tokens are bytes. Names and numbers are all different in a book, so the number asked for stands in it
    once. Validation and test ask for that number alone, all digits; training asks for those of the worked
    look-ups too. With ``question_first``, the reversed book, the name is said before the list as well, so
    that a model can know what to keep.

    The task is that of Jelassi, Brandfonbrener, Kakade, Malach 2024 (arXiv 2402.01032) and of Waleffe and
    others 2024, "An empirical study of Mamba-based language models" (arXiv 2406.07887); names and layout are
    our own.

    Args:
        entries: lines of the book.
        digits: of a number, 7 to 10 in the papers.
        examples: worked look-ups before the question.
        question_first: whether the name stands before the book too.
        count: train sequences; a tenth as many validate, and as many test.
        seed: of the sequences.

    Raises:
        ValueError: no entry left to ask for, numbers of too few digits to be all different, or too few
            sequences.
    """
    if not 0 <= examples < entries or not 1 <= digits <= 18 or entries > 10**digits:
        raise ValueError(
            "phone_book takes more entries than worked examples, so that one is left to ask for, and numbers "
            f"of 1 to 18 digits that can all differ; got {entries} entries, {examples} examples, {digits} "
            "digits. Correct them."
        )

    def draw(random: np.random.Generator) -> Drawn:
        names, numbers = distinct_names(random, entries), _numbers(random, entries, digits)
        lines = [f"{name}: {number}\n" for name, number in zip(names, numbers, strict=True)]
        chosen = random.choice(entries, examples + 1, replace=False).tolist()
        asked = chosen.pop()
        first = f"{names[asked]}?\n\n" if question_first else ""
        last = f"{names[asked]}: {numbers[asked][:-1]}"
        text = first + "".join(lines) + "\n" + "".join(lines[i] for i in chosen) + last
        tokens = np.frombuffer(text.encode(), dtype=np.uint8)
        practice = np.full(len(tokens), IGNORED)
        start = len(tokens) - len(last)
        for i in reversed([*chosen, asked]):
            if i != asked:
                start -= len(lines[i])
            place = start + len(names[i]) + 1  # the space before the first digit
            practice[place : place + digits] = np.frombuffer(numbers[i].encode(), dtype=np.uint8)
        targets = np.full(len(tokens), IGNORED)
        targets[-digits:] = practice[-digits:]
        return Drawn(tokens, targets, practice)

    return drawn_task(
        "phone_book",
        [(draw, count)],
        seed,
        vocab_size=256,
        answers=_DIGITS,
        asked="the number of a name in the book",
        whole=True,
        details={"entries": entries, "digits": digits},
    )


def distinct_names(random: np.random.Generator, count: int) -> list[str]:
    """So many different first and last names, drawn as syllables: some 10^10 are possible."""
    found: dict[str, None] = {}
    while len(found) < count:
        lengths = random.integers(2, 4, size=2 * count)
        letters = syllables(random, int(lengths.sum()))
        words = np.split(np.array(letters), np.cumsum(lengths)[:-1])
        parts = ["".join(word).capitalize() for word in words]
        found |= dict.fromkeys(f"{a} {b}" for a, b in zip(parts[::2], parts[1::2], strict=True))
    return list(found)[:count]


def syllables(random: np.random.Generator, count: int) -> list[str]:
    """So many syllables of a consonant and a vowel."""
    codes = random.integers(len(_CONSONANTS) * len(_VOWELS), size=count).tolist()
    return [_CONSONANTS[code // len(_VOWELS)] + _VOWELS[code % len(_VOWELS)] for code in codes]


def _numbers(random: np.random.Generator, count: int, digits: int) -> list[str]:
    """So many different numbers, as text with leading zeros."""
    found: dict[str, None] = {}
    while len(found) < count:
        drawn = random.integers(10**digits, size=count).tolist()
        found |= dict.fromkeys(f"{number:0{digits}d}" for number in drawn)
    return list(found)[:count]
