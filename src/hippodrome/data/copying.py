"""Copying: say again what was said, at fixed places, at places that the content tells, or as a string."""

import numpy as np

from hippodrome.data._drawn import Drawn, asked_at_the_end, drawn_task
from hippodrome.data.base import Task
from hippodrome.data.text import IGNORED


def open_selective_copying(
    *, length: int = 4096, items: int = 16, vocabulary: int = 16, count: int = 20000, seed: int = 0
) -> Task:
    """Data tokens at random places among noise, then as many places to say them again, in order.

    The distances between what is said and where it is asked for change from sequence to sequence, so a map
    whose kernel does not depend on the input cannot gather it (Gu and Dao 2023, arXiv 2312.00752, section
    3.1). The noise is one token, and so is the mark at each place of the answer; both are among the
    ``vocabulary``, the last two of it.

    Args:
        length: tokens of data and noise; the answer's ``items`` places follow.
        items: data tokens.
        vocabulary: number of tokens in all.
        count: train sequences; a tenth as many validate, and as many test.
        seed: of the sequences.

    Raises:
        ValueError: more items than tokens, a vocabulary without two data tokens, or too few sequences.
    """
    return _copying("selective_copying", length, items, vocabulary, count, seed, scattered=True)


def open_copying(
    *, length: int = 256, items: int = 16, vocabulary: int = 16, count: int = 20000, seed: int = 0
) -> Task:
    """Data tokens, then noise, then as many places to say them again: every distance is the same.

    The copying task of Hochreiter and Schmidhuber's kind as Arjovsky, Shah, Bengio 2016 (arXiv 1511.06464)
    have it, with a mark at each place of the answer: one kernel that looks ``length`` tokens back solves it.

    Args:
        length: tokens of data and noise; the answer's ``items`` places follow.
        items: data tokens, which stand first.
        vocabulary: number of tokens in all, the noise and the mark among them.
        count: train sequences; a tenth as many validate, and as many test.
        seed: of the sequences.

    Raises:
        ValueError: more items than tokens, a vocabulary without two data tokens, or too few sequences.
    """
    return _copying("copying", length, items, vocabulary, count, seed, scattered=False)


def open_string_copying(
    *,
    length: int = 64,
    shortest: int | None = None,
    vocabulary: int = 26,
    count: int = 20000,
    seed: int = 0,
) -> Task:
    """A random string, a mark, and the string again: each of its tokens is asked for, then the end.

    Jelassi, Brandfonbrener, Kakade, Malach 2024, "Repeat after me: transformers are better than state space
    models at copying", arXiv 2402.01032: trained on strings up to some length, tested on longer ones.

    Args:
        length: tokens of the longest string; every length from ``shortest`` on is as likely.
        shortest: tokens of the shortest string; as long as the longest if left out.
        vocabulary: number of letters; the mark and the end are two more tokens.
        count: train sequences; a tenth as many validate, and as many test.
        seed: of the sequences.

    Raises:
        ValueError: no string of such lengths, a vocabulary below 2, or too few sequences.
    """
    least = length if shortest is None else shortest
    if not 1 <= least <= length or vocabulary < 2:
        raise ValueError(
            "string_copying takes strings of 1 token or more, the shortest no longer than the longest, over "
            f"2 letters or more; got shortest {least}, longest {length}, {vocabulary} letters. Take others."
        )
    mark, end = vocabulary, vocabulary + 1

    def draw(random: np.random.Generator) -> Drawn:
        string = random.integers(vocabulary, size=random.integers(least, length + 1))
        tokens = np.concatenate([string, [mark], string])
        return Drawn(tokens, asked_at_the_end(tokens, np.append(string, end)))

    return drawn_task(
        "string_copying",
        [(draw, count)],
        seed,
        vocab_size=vocabulary + 2,
        answers=range(vocabulary + 2),
        asked="the string again, and its end",
        whole=True,
    )


def _copying(
    name: str, length: int, items: int, vocabulary: int, count: int, seed: int, scattered: bool
) -> Task:
    if not 1 <= items <= length or vocabulary < 4:
        raise ValueError(
            f"{name} takes 1 item or more, no more than tokens, and a vocabulary of 4 or more: two data "
            f"tokens, the noise, the mark; got {items} items in length {length}, vocabulary {vocabulary}. "
            "Correct them."
        )
    noise, mark = vocabulary - 2, vocabulary - 1
    asked = np.full(length + items, IGNORED)

    def draw(random: np.random.Generator) -> Drawn:
        said = random.integers(vocabulary - 2, size=items)
        places = np.sort(random.choice(length, items, replace=False)) if scattered else slice(items)
        tokens = np.full(length + items, noise)
        tokens[places], tokens[length:] = said, mark
        targets = asked.copy()
        targets[length:] = said
        return Drawn(tokens, targets)

    return drawn_task(
        name,
        [(draw, count)],
        seed,
        vocab_size=vocabulary,
        answers=range(vocabulary - 2),
        asked="the data tokens again, in their order",
        whole=True,
        details={"items": items, "length": length},
    )
