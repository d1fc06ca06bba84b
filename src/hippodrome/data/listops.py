"""ListOps: nested prefix operations on digits, generated and labelled here, no download.

Nangia and Bowman 2018, arXiv 1804.06028; lengths and sizes as in the Long Range Arena (Tay et al. 2020, arXiv
2011.04006, section 2.2.1) where asked for with ``length=2000, count=100000``, which takes seconds.
"""

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from hippodrome.data._labelled import labelled_task
from hippodrome.data.base import Task

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
TOKENS = (*map(str, range(10)), *OPERATORS, "]")
"""The 15 tokens; a token's id is its place here."""

_CLOSE = len(TOKENS) - 1
_DEPTH = 10
_ARGUMENTS = 10
_CHANCE = 0.25

BULK = 200_000
"""From so many tokens on compiled loops are worth their start."""


def open_listops(*, length: int = 256, count: int = 6000, seed: int = 0) -> Task:
    """A classification task over generated expressions whose value, a digit, is the class.

    An expression is kept where length / 4 < its tokens < length, and no two are the same (a bound of 2000
    keeps 501 to 1999, as published). Of ``count``, 2 in 100 validate and 2 in 100 test, 500 each at the
    least where ``count`` is 3000 or more, a tenth each where it is less.

    Args:
        length: upper bound of the number of tokens.
        count: number of expressions.
        seed: of the generator.

    Raises:
        ValueError: bounds between which there are no expressions, or too few expressions to split.
    """
    if length < 24 or count < 100:
        raise ValueError(
            f"listops needs a length of 24 or more and a count of 100 or more; got {length} and {count}. Ask "
            f"for more."
        )
    sequences = [np.frombuffer(row, dtype=np.uint8) for row in expressions(count, length // 4, length, seed)]
    labels = values(sequences)
    held = max(round(count * 0.02), 500 if count >= 3000 else count // 10)
    parts = np.split(np.arange(count), [count - 2 * held, count - held])
    details = {
        "source": "generated ListOps",
        "seed": seed,
        "bounds": f"{length // 4} < tokens < {length}",
        "known best error": 0.0,
    }
    return labelled_task(
        sequences.__getitem__,
        labels,
        parts,
        [str(digit) for digit in range(10)],
        "listops",
        "listops",
        details,
        lengths=np.array([len(row) for row in sequences]),
        vocab_size=len(TOKENS),
        tokenizer=listops_tokenizer(),
    )


def generate(count: int, low: int, high: int, seed: int) -> list[tuple[int, ...]]:
    """``count`` different expressions as token ids, each longer than ``low`` and shorter than ``high``.

    A node of depth below 10 is an operator with chance 1/4, of 2 to 10 arguments drawn evenly, else a digit;
    the root has depth 1. Trees outside the bounds are drawn again.
    """
    draw = random.Random(seed).random
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        tokens = _grow(draw, high)
        if low < len(tokens) < high:
            found.setdefault(tuple(tokens))
    return list(found)


def expressions(count: int, low: int, high: int, seed: int) -> list[bytes]:
    """What ``generate`` gives, a byte a token: the very same expressions, in bulk where there are many."""
    if count * high < BULK:
        return [bytes(row) for row in generate(count, low, high, seed)]
    found: dict[bytes, None] = {}
    for tree in _in_bulk(low, high, seed):
        found.setdefault(tree)
        if len(found) == count:
            break
    return list(found)


def _in_bulk(low: int, high: int, seed: int) -> Iterator[bytes]:
    """Trees without end. NumPy continues Python's generator from its state with the very same numbers."""
    from hippodrome.data._listops_kernel import grow

    *key, position = random.Random(seed).getstate()[1]
    numbers = np.random.RandomState()
    numbers.set_state(("MT19937", np.array(key, dtype=np.uint32), position, 0, 0.0))
    left = np.empty(0)
    out, ends = np.empty(max(2**22, 4 * high), dtype=np.uint8), np.empty(2**16, dtype=np.int64)
    while True:
        left = np.concatenate([left, numbers.random_sample(max(2**22, 6 * high))])
        taken = 1
        while taken:
            kept, taken = grow(left, low, high, _DEPTH, _ARGUMENTS, _CHANCE, len(OPERATORS), out, ends)
            left = left[taken:]
            start = 0
            for end in ends[:kept].tolist():
                yield out[start:end].tobytes()
                start = end


def values(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """What ``evaluate`` gives of each; in bulk where there are many."""
    if sum(map(len, sequences)) < BULK:
        return np.array([evaluate(row.tolist()) for row in sequences])
    from hippodrome.data._listops_kernel import evaluate_all

    ends = np.cumsum([len(row) for row in sequences])
    return evaluate_all(np.concatenate(sequences), ends, _DEPTH)


def evaluate(tokens: Sequence[int]) -> int:
    """The value of an expression, by a stack: smallest, largest, median (rounded down), sum modulo 10.

    Raises:
        ValueError: brackets that do not match.
    """
    stack: list[tuple[int, list[int]]] = [(-1, [])]
    for token in tokens:
        if token < 10:
            stack[-1][1].append(token)
        elif token < _CLOSE:
            stack.append((token, []))
        else:
            operator, values = stack.pop()
            if not stack or not values:
                break
            stack[-1][1].append(_apply(TOKENS[operator], values))
    if len(stack) != 1 or len(stack[0][1]) != 1:
        raise ValueError(
            "an expression of ListOps is one digit or one operator with its arguments and its bracket; the "
            "brackets do not match. Check the tokens."
        )
    return stack[0][1][0]


def parse(text: str) -> list[int]:
    """Token ids of an expression in text, without the round parentheses that the published files carry."""
    ids = {token: index for index, token in enumerate(TOKENS)}
    return [ids[token] for token in text.replace("(", " ").replace(")", " ").split()]


def listops_tokenizer() -> Tokenizer:
    """A tokenizer of expressions in text, parentheses left out."""
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS)}, unk_token="0"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace("(", " "), normalizers.Replace(")", " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _grow(draw: Callable[[], float], high: int) -> list[int]:
    """A random tree, or as much of it as shows that it is too long: no time goes into trees that are lost.

    Depth first with a stack of how many arguments each open operator still lacks.
    """
    tokens: list[int] = []
    lacking = [1]
    while lacking and len(tokens) < high:
        if not lacking[-1]:
            lacking.pop()
            if lacking:
                tokens.append(_CLOSE)
            continue
        lacking[-1] -= 1
        if len(lacking) < _DEPTH and draw() <= _CHANCE:
            tokens.append(10 + int(draw() * len(OPERATORS)))
            lacking.append(2 + int(draw() * (_ARGUMENTS - 1)))
        else:
            tokens.append(int(draw() * 10))
    return tokens


def _apply(operator: str, values: list[int]) -> int:
    if operator == "[MIN":
        return min(values)
    if operator == "[MAX":
        return max(values)
    if operator == "[SM":
        return sum(values) % 10
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) // 2
