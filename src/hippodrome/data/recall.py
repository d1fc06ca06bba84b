"""Recall: sequences of drawn tokens that end in a question about themselves, for models of language.

Associative recall and induction as in Fu, Dao, Saab, Thomas, Rudra, Ré 2022 (arXiv 2212.14052, section 3.1
and table 1).
"""

import numpy as np

from hippodrome.data._drawn import Drawn, asked_at_the_end, drawn_task
from hippodrome.data.base import Task
from hippodrome.data.text import IGNORED


def open_associative_recall(
    *, length: int = 20, vocabulary: int = 10, count: int = 5000, seed: int = 0
) -> Task:
    """Pairs of a key and its value, then one of the keys again: which value was it?

    Each sequence draws a value for every key, then keys one after the other, each with its value: a key may
    come several times, always with the same value. It ends with one of the keys that came, each as likely.
    Validation and test ask for the value at the end alone. Training asks for it at every key that has come
    before: the authors' code trains on every next token, of which these are the ones that can be known, and
    a question a sequence is so faint a signal that little is learned in thousands of steps.

    Args:
        length: tokens of the pairs; the question is one more.
        vocabulary: number of tokens; the first half are keys, the second half values.
        count: train sequences; a tenth as many validate, and as many test.
        seed: of the sequences.

    Raises:
        ValueError: an odd length or vocabulary, too small a one, or too few sequences.
    """
    if length < 2 or length % 2 or vocabulary < 4 or vocabulary % 2:
        raise ValueError(
            "associative_recall takes pairs of a key and a value: an even length of 2 or more and an even "
            f"vocabulary of 4 or more; got {length} and {vocabulary}. Take even numbers."
        )
    half = vocabulary // 2

    def draw(random: np.random.Generator) -> Drawn:
        value = half + random.integers(half, size=half)
        keys = random.integers(half, size=length // 2)
        asked = random.choice(np.unique(keys))
        tokens = np.append(np.stack([keys, value[keys]], 1).ravel(), asked)
        practice = np.where(tokens < half, dictionary(tokens), IGNORED)
        return Drawn(tokens, asked_at_the_end(tokens, int(value[asked])), practice)

    return drawn_task(
        "associative_recall",
        [(draw, count)],
        seed,
        vocab_size=vocabulary,
        answers=range(half, vocabulary),
        asked="what followed the same token before",
    )


def open_induction(*, length: int = 30, vocabulary: int = 20, count: int = 5000, seed: int = 0) -> Task:
    """Random tokens with a special one at a random place; at the end it comes again: what followed it?

    Of the size that Gu and Dao 2023 (arXiv 2312.00752) take with ``length=255 vocabulary=16``: 256 tokens.

    Args:
        length: tokens before the special one comes again.
        vocabulary: number of ordinary tokens; the special one is one more.
        count: train sequences; a tenth as many validate, and as many test.
        seed: of the sequences.

    Raises:
        ValueError: a length or vocabulary below 2, or too few sequences.
    """
    if length < 2 or vocabulary < 2:
        raise ValueError(
            "induction takes a length and a vocabulary of 2 or more, so that something follows the special "
            f"token; got {length} and {vocabulary}. Take larger ones."
        )

    def draw(random: np.random.Generator) -> Drawn:
        tokens = np.append(random.integers(vocabulary, size=length), vocabulary)
        place = random.integers(length - 1)
        tokens[place] = vocabulary
        return Drawn(tokens, asked_at_the_end(tokens, int(tokens[place + 1])))

    return drawn_task(
        "induction",
        [(draw, count)],
        seed,
        vocab_size=vocabulary + 1,
        answers=range(vocabulary),
        asked="what followed the same token before",
    )


def dictionary(tokens: np.ndarray) -> np.ndarray:
    """What followed the last earlier appearance of each token (t,); IGNORED where there was none.

    The rule that answers every question of these tasks.
    """
    after: dict[int, int] = {}
    found = np.full(len(tokens), IGNORED)
    for i, token in enumerate(tokens.tolist()):
        found[i] = after.get(token, IGNORED)
        if i + 1 < len(tokens):
            after[token] = int(tokens[i + 1])
    return found
