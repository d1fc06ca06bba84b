"""Rows of cost by length: every recurrence from 1k to 256k tokens, time and memory of a token."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from hippodrome.bench.ops import example_tensors, fill, output
from hippodrome.bench.row import Contender, Row, Where

SIZES: dict[str, dict[str, int]] = {
    "linear_scan": {"d": 256},
    "linear_scan_complex": {"d": 128},
    "selective_scan": {"d": 256, "n": 16},
    "ssd": {"h": 4, "p": 64, "n": 64, "g": 1},
    "diagonal_lti": {"d": 256, "n": 16},
    "gla": {"h": 2, "k": 64, "v": 64},
    "delta_rule": {"h": 2, "k": 64, "v": 64},
}
LONGEST = 262144


def _cut(x: Any, tokens: int, rows: int, t: int) -> Any:
    """The first rows times t tokens of what has a time axis, as so many rows; no copy of it."""
    if not isinstance(x, Tensor):
        return x
    if x.shape[:2] == (1, tokens):
        x = x[:, : rows * t].reshape(rows, t, *x.shape[2:])
    return x.detach().requires_grad_() if x.is_floating_point() else x


def contenders(where: Where, op: str, tokens: int, rows: int = 0) -> list[Contender]:
    """One operator at five lengths up to ``tokens``; so many rows at each, or (0) as many tokens in all."""
    door: Callable[..., Any] = getattr(import_module(f"hippodrome.ops.{op}"), op)
    whole = example_tensors(op, where, b=1, t=tokens, **SIZES[op])
    found = []
    for t in [tokens // 4**i for i in (4, 3, 2, 1, 0)]:
        count = rows or tokens // t
        mine = [_cut(x, tokens, count, t) for x in whole]
        call = partial(output, door, mine)
        found.append(Contender(f"hippodrome, t={t}", call, fill(mine), same=False, units=count * t))
    return found


def rows() -> list[Row]:
    """Two rows for each operator that this version has."""
    found = []
    for op in SIZES:
        if find_spec(f"hippodrome.ops.{op}") is None:
            continue
        name, build = op.replace("_", "-"), partial(contenders, op=op)
        title = f"Cost of a token by length: {op}"
        one = (
            "One row, time and memory divided by its tokens. A short row fits in the processor's caches, a "
            "long one does not."
        )
        tiny = {"tokens": 1024, "rows": 1}
        found.append(Row(f"flat-{name}", "op", title, one, [{"tokens": LONGEST, "rows": 1}], tiny, build))
        many = "As many tokens at every length, in many short rows or few long ones: caches play no part."
        shapes, tiny = [{"tokens": LONGEST}], {"tokens": 1024}
        title += ", as many tokens in all"
        found.append(Row(f"flat-{name}-rows", "op", title, many, shapes, tiny, build, memory=False))
    return found
