"""Numba kernel of cross-entropy: peak, sum of exponentials and gradient of a row while the cache holds it.

A tile is one row of the flat logits (rows, vocab), which are overwritten by their gradient where ``write`` is
set. A row goes through four sums at once, which hide one another's latency. Exponentials are formed twice
rather than stored: they cost less than the memory, and bfloat16 could not hold them.
"""

import math
from typing import Any

import numpy as np
from numba import njit
from numba.extending import intrinsic as _intrinsic

from hippodrome.ops._lanes_kernel import (
    LANES,
    LOG2_E,
    exp2,
    get,
    load,
    load_some,
    put,
    scratch,
    store,
    store_some,
    total,
    zeros,
)

# Kernels call an intrinsic without the typing context it is written with: no type checker can know.
intrinsic: Any = _intrinsic
IGNORED = -100
WIDE = 4 * LANES


@intrinsic
def larger(typingctx, left, right):
    """The larger of two in each lane, the right one where the left is NaN."""

    def generate(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[0], args[1])

    return left(left, right), generate


@njit(nogil=True, cache=True)
def peak(logits, at, vocab, room):
    """The largest of a row; NaN may be passed over, since the sum of exponentials shows it."""
    best = get(logits, at)
    whole = vocab - vocab % WIDE
    if whole:
        a, b = load(logits, at), load(logits, at + LANES)
        c, d = load(logits, at + 2 * LANES), load(logits, at + 3 * LANES)
        for i in range(at + WIDE, at + whole, WIDE):
            a, b = larger(load(logits, i), a), larger(load(logits, i + LANES), b)
            c, d = larger(load(logits, i + 2 * LANES), c), larger(load(logits, i + 3 * LANES), d)
        store(room, 0, larger(larger(a, b), larger(c, d)))
        for i in range(LANES):
            best = max(best, room[i])
    for i in range(at + whole, at + vocab):
        best = max(best, get(logits, i))
    return best


@njit(nogil=True, cache=True)
def exponentials(logits, at, vocab, top):
    """The sum of exp(z - top) over a row."""
    a, b, c, d = zeros(logits), zeros(logits), zeros(logits), zeros(logits)
    whole = vocab - vocab % WIDE
    for i in range(at, at + whole, WIDE):
        a = a + exp2((load(logits, i) - top) * LOG2_E)
        b = b + exp2((load(logits, i + LANES) - top) * LOG2_E)
        c = c + exp2((load(logits, i + 2 * LANES) - top) * LOG2_E)
        d = d + exp2((load(logits, i + 3 * LANES) - top) * LOG2_E)
    tail = 0.0
    for i in range(at + whole, at + vocab):
        tail += math.exp(get(logits, i) - top)
    return np.float64(total((a + b) + (c + d))) + tail


@njit(nogil=True, cache=True)
def losses_and_gradients(first, last, logits, targets, rate, vocab, write, losses):
    """Rows [first, last)."""
    room = scratch(LANES, logits)
    whole, rest = vocab - vocab % LANES, vocab % LANES
    for row in range(first, last):
        at, target = row * vocab, targets[row]
        if target == IGNORED:
            losses[row] = 0
            if write:
                for i in range(0, vocab, LANES):
                    store_some(logits, at + i, vocab - i, zeros(logits))
            continue
        top = peak(logits, at, vocab, room)
        size = math.log(exponentials(logits, at, vocab, top))
        own = np.float64(get(logits, at + target)) - top
        losses[row] = size - own
        if write:
            less = size * LOG2_E
            for i in range(at, at + whole, LANES):
                store(logits, i, exp2((load(logits, i) - top) * LOG2_E - less) * rate)
            if rest:
                last_ones = (load_some(logits, at + whole, rest) - top) * LOG2_E - less
                store_some(logits, at + whole, rest, exp2(last_ones) * rate)
            put(logits, at + target, (math.exp(own - size) - 1.0) * rate)
