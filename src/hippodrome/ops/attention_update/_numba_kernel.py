"""Numba kernels of one token of attention: one turns it and writes it into the cache, one reads the cache.

A tile of the first is a row, of the second a head of a row. Scores, softmax and sums are float32 at least.
"""

import math

import numpy as np
from numba import njit

from hippodrome.ops._address_kernel import SAMPLES, at
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

__all__ = ["SAMPLES", "read", "write"]

WHOLE = np.zeros(1, np.int64)
DOUBLE = np.zeros(1, np.float64)


@njit(nogil=True, cache=True)
def write(first, last, sizes, addresses, sample, caches, wides):
    """Rows [first, last): queries turned, keys and values into their slot, the count one up.

    ``sizes``: slots, heads, heads of keys, channels, turned pairs, the stride of rows of qkv, and whether a
    full cache starts over; ``addresses``: qkv, frequencies (or 0), k, v, seen, q and y. Raises ValueError
    where no slot is free.
    """
    slots, heads, kv, e, half, step, ring = sizes
    x, q = at(addresses[0], sample), at(addresses[5], wides)
    frequencies, seen = at(addresses[1], DOUBLE), at(addresses[4], WHOLE)
    k, v = at(addresses[2], caches), at(addresses[3], caches)
    cos, sin = scratch(half + 1, wides), scratch(half + 1, wides)
    for row in range(first, last):
        position = seen[row]
        if position >= slots and ring == 0:
            raise ValueError("attention_update: all slots are filled; one token more comes.")
        for i in range(half):
            angle = position * frequencies[i]
            cos[i], sin[i] = math.cos(angle), math.sin(angle)
        slot = (row * slots + position % slots) * kv
        for h in range(heads + kv):
            source = row * step + h * e
            for i in range(e):
                value = get(x, source + i) + wides.dtype.type(0)
                if i < half:
                    value = value * cos[i] - get(x, source + half + i) * sin[i]
                elif i < 2 * half:
                    value = value * cos[i - half] + get(x, source - half + i) * sin[i - half]
                if h < heads:
                    q[(row * heads + h) * e + i] = value
                else:
                    put(k, (slot + h - heads) * e + i, value)
        for h in range(kv):
            for i in range(0, e, LANES):
                value = load_some(x, row * step + (heads + kv + h) * e + i, e - i)
                store_some(v, (slot + h) * e + i, e - i, value)
        seen[row] = position + 1


@njit(nogil=True, cache=True)
def read(first, last, sizes, scale, addresses, sample, caches, wides):
    """Heads [first, last) of all rows, over the filled slots; arguments as of ``write``."""
    slots, heads, kv, e, _, _, _ = sizes
    q, y, seen = at(addresses[5], wides), at(addresses[6], sample), at(addresses[4], WHOLE)
    k, v = at(addresses[2], caches), at(addresses[3], caches)
    room = -(-e // LANES) * LANES
    query, sums = scratch(room, wides), scratch(room, wides)
    most = 0
    for row in range(first // heads, (last + heads - 1) // heads):
        most = max(most, min(seen[row], slots))
    scores = scratch(most + LANES, wides)
    for tile in range(first, last):
        row, head = tile // heads, tile % heads
        filled = min(seen[row], slots)
        start, step = (row * slots * kv + head // (heads // kv)) * e, kv * e
        for i in range(0, e, LANES):
            store(query, i, load_some(q, tile * e + i, e - i) * (scale * LOG2_E))
        highest = wides.dtype.type(-np.inf)
        for s in range(filled):
            place = start + s * step
            a = zeros(wides)
            for i in range(0, e, LANES):
                a = a + load(query, i) * load_some(k, place + i, e - i)
            score = total(a)
            scores[s] = score
            # False for NaN, which stays in the scores.
            highest = score if score > highest else highest
        whole = zeros(wides)
        for s in range(0, filled, LANES):
            weights = exp2(load_some(scores, s, filled - s) - highest)
            store(scores, s, weights)
            for j in range(filled - s, LANES):
                scores[s + j] = 0
            whole = whole + load(scores, s)
        share = wides.dtype.type(1.0) / total(whole)
        for i in range(0, e, LANES):
            store(sums, i, zeros(wides))
        for i in range(0, e, LANES):
            a, b = zeros(wides), zeros(wides)
            even = filled // 2 * 2
            for s in range(0, even, 2):
                a = a + load_some(v, start + s * step + i, e - i) * scores[s]
                b = b + load_some(v, start + (s + 1) * step + i, e - i) * scores[s + 1]
            if even < filled:
                a = a + load_some(v, start + even * step + i, e - i) * scores[even]
            store_some(y, tile * e + i, e - i, (a + b) * share)
