"""MQAR: recall of many values in one sequence, with gaps between a pair and its question as in language.

Arora, Eyuboglu, Timalsina, Johnson, Poli, Zou, Rudra, Ré 2023, "Zoology: measuring and improving recall in
efficient language models", arXiv 2312.04927; the rules are those of the authors' generator.
"""

import re

import numpy as np

from hippodrome.data._drawn import Draw, Drawn, drawn_task
from hippodrome.data.base import Task
from hippodrome.data.text import IGNORED

BASED = "64:4x100000,128:8x20000,256:16x20000,256:32x20000,256:64x20000"
"""The lengths and pairs that Based (Arora and others 2024, arXiv 2402.18668) trains on, all mixed."""


def open_mqar(
    *,
    length: int = 64,
    pairs: int = 8,
    vocabulary: int = 8192,
    filler: str = "random",
    exponent: float = 0.01,
    segments: str | None = None,
    count: int = 20000,
    seed: int = 0,
) -> Task:
    """Pairs of a key and its value, then every key once more at some distance: which value was its?

    Tokens k_1 v_1 ... k_D v_D, then (length - 2 D) / 2 slots of two tokens. D different slots, one for each
    key, are drawn one after the other with chances proportional to g^(a-1) in slot g = 1, 2, ..., a the
    ``exponent``: most keys are asked for soon. The key stands at the first place of its slot, and its value
    is the target there. Everywhere else is filler, and nothing is asked. Keys are drawn without replacement
    from 1 ... V/2 - 1, values from V/2 ... V - 1.

    One thing differs from the authors' generator: random filler is never one of the sequence's own keys,
    which would make the answer ambiguous.

    Args:
        length: tokens of a sequence.
        pairs: keys D; a sequence holds four tokens for each at least.
        vocabulary: number of tokens V.
        filler: "random" tokens, or "zeros" as in the experiments of the paper's figure 2.
        exponent: a of the power law; 1 makes all slots alike.
        segments: several lengths and pairs mixed, as "64:4x1000,128:8x200" (length:pairs x train sequences),
            or "based" for those of Based. It takes the place of length, pairs and count.
        count: train sequences; a tenth as many validate, and as many test.
        seed: of the sequences.

    Raises:
        ValueError: an odd length, too many pairs for it or for the vocabulary, an unknown filler, or segments
            of another form.
    """
    if filler not in ("random", "zeros"):
        raise ValueError(
            f"mqar fills with 'random' tokens or with 'zeros'; got {filler!r}. Take one of them."
        )
    mixed = [(length, pairs, count)] if segments is None else _segments(segments)
    draws = [(_draw(t, d, vocabulary, filler == "random", exponent), number) for t, d, number in mixed]
    return drawn_task(
        "mqar",
        draws,
        seed,
        vocab_size=vocabulary,
        answers=range(vocabulary // 2, vocabulary),
        asked="the value of each key, where it comes again",
        details={"pairs": sorted({d for _, d, _ in mixed}), "lengths": sorted({t for t, _, _ in mixed})},
    )


def chances(space: int, exponent: float) -> np.ndarray:
    """The power law over slots: p(g) proportional to g^(a-1), g = 1 ... space."""
    p = np.arange(1, space + 1) ** (exponent - 1)
    return p / p.sum()


def _draw(length: int, pairs: int, vocabulary: int, random_filler: bool, exponent: float) -> Draw:
    """The function that draws one sequence of this length."""
    if pairs < 1 or length % 2 or length < 4 * pairs:
        raise ValueError(
            "mqar takes an even length with four tokens for each pair at least, two for the pair and two for "
            f"its question; got length {length} and {pairs} pairs. Take a longer sequence or fewer pairs."
        )
    if vocabulary % 2 or vocabulary < 2 * (pairs + 1):
        raise ValueError(
            f"mqar draws {pairs} different keys from the lower half of the vocabulary without token 0, and "
            f"as many values from the upper half; got a vocabulary of {vocabulary}. Take an even number of "
            f"{2 * (pairs + 1)} or more."
        )
    if not np.isfinite(exponent):
        raise ValueError(f"mqar: the exponent of a power law is finite; got {exponent}. Take .01.")
    half, told = vocabulary // 2, 2 * pairs
    p = chances((length - told) // 2, exponent)
    others = vocabulary - pairs

    def draw(random: np.random.Generator) -> Drawn:
        keys = 1 + random.choice(half - 1, pairs, replace=False)
        values = half + random.choice(half, pairs, replace=False)
        places = told + 2 * random.choice(len(p), pairs, replace=False, p=p)
        tokens = np.zeros(length, dtype=np.int64)
        if random_filler:  # the n-th of the tokens that are no key: n plus the keys before it
            tokens[:] = random.integers(others, size=length)
            tokens += np.searchsorted(np.sort(keys) - np.arange(pairs), tokens, side="right")
        tokens[:told:2], tokens[1:told:2], tokens[places] = keys, values, keys
        targets = np.full(length, IGNORED)
        targets[places] = values
        return Drawn(tokens, targets)

    return draw


def _segments(text: str) -> list[tuple[int, int, int]]:
    """Length, pairs and number of sequences of each segment."""
    found = []
    for part in (BASED if text == "based" else text).split(","):
        match = re.fullmatch(r"\s*(\d+):(\d+)x(\d+)\s*", part)
        if match is None:
            raise ValueError(
                f"mqar takes segments as length:pairsxsequences with commas between them, such as "
                f"64:4x1000,128:8x200, or 'based'; got {text!r}. Write them so."
            )
        found.append((int(match[1]), int(match[2]), int(match[3])))
    return found
