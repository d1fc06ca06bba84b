"""Numba kernels of int8 weights: the linear map of few rows, and rows of a table.

A tile of the map is sixteen outputs. Weights are read in order, as one stream, and asked for two pages ahead:
the work on a cache line of int8 is four times that on one of float32, which leaves the processor's own
prefetching behind. Four rows of the input take part in each weight as it is read and widened; what is left of
them goes one by one.
"""

import numpy as np
from numba import njit

from hippodrome.ops._address_kernel import SAMPLES, at
from hippodrome.ops._lanes_kernel import (
    LANES,
    get,
    load,
    load_some,
    prefetch,
    put,
    scratch,
    store,
    store_some,
    total,
    zeros,
)

OUTPUTS = 16
AHEAD = 8192
_WEIGHT, _SCALE, _ID = np.zeros(1, np.int8), np.zeros(1, np.float32), np.zeros(1, np.int64)
__all__ = ["OUTPUTS", "SAMPLES", "product", "rows_of"]


@njit(inline="always")
def _one(x, i, weight, j, inner):
    """The sum over one row of x, zeros behind it, and one of weights; four hide the latency of one."""
    whole = inner // (4 * LANES) * 4 * LANES
    a, b, c, d = zeros(x), zeros(x), zeros(x), zeros(x)
    for k in range(0, whole, 4 * LANES):
        prefetch(weight, j + k + AHEAD, 0)
        a = a + load(x, i + k) * load(weight, j + k)
        b = b + load(x, i + k + LANES) * load(weight, j + k + LANES)
        c = c + load(x, i + k + 2 * LANES) * load(weight, j + k + 2 * LANES)
        d = d + load(x, i + k + 3 * LANES) * load(weight, j + k + 3 * LANES)
    for k in range(whole, inner, LANES):
        a = a + load(x, i + k) * load_some(weight, j + k, inner - k)
    return total((a + b) + (c + d))


@njit(inline="always")
def _four(x, i, step, weight, j, inner):
    """The same of four rows of x, ``step`` apart, with two sums for each."""
    whole, p, q, r = inner // (2 * LANES) * 2 * LANES, i + step, i + 2 * step, i + 3 * step
    a, b, c, d = zeros(x), zeros(x), zeros(x), zeros(x)
    e, f, g, h = zeros(x), zeros(x), zeros(x), zeros(x)
    for k in range(0, whole, 2 * LANES):
        prefetch(weight, j + k + AHEAD, 0)
        v, w, m = load(weight, j + k), load(weight, j + k + LANES), k + LANES
        a, e = a + load(x, i + k) * v, e + load(x, i + m) * w
        b, f = b + load(x, p + k) * v, f + load(x, p + m) * w
        c, g = c + load(x, q + k) * v, g + load(x, q + m) * w
        d, h = d + load(x, r + k) * v, h + load(x, r + m) * w
    for k in range(whole, inner, LANES):
        v = load_some(weight, j + k, inner - k)
        a, b = a + load(x, i + k) * v, b + load(x, p + k) * v
        c, d = c + load(x, q + k) * v, d + load(x, r + k) * v
    return total(a + e), total(b + f), total(c + g), total(d + h)


@njit(nogil=True, cache=True)
def product(first, last, sizes, addresses, sample):
    """Tiles [first, last) of y (rows, outer); ``sizes``: rows, inner, outer, and the strides of rows of x and
    weight; ``addresses``: x, weight (int8), scale (float32), bias (or 0) and y, the others of the sample's
    dtype.
    """
    rows, inner, outer, x_row, step = sizes
    given, weight, scale = at(addresses[0], sample), at(addresses[1], _WEIGHT), at(addresses[2], _SCALE)
    bias, y = at(addresses[3], sample), at(addresses[4], sample)
    biased = addresses[3] != 0
    # Widened once, from a cache line's edge, and not for each of the outputs.
    pitch = -(-inner // LANES) * LANES
    x = scratch(rows * pitch, given)
    for r in range(rows):
        for k in range(0, inner, LANES):
            store(x, r * pitch + k, load_some(given, r * x_row + k, inner - k))
    for o in range(first * OUTPUTS, min(last * OUTPUTS, outer)):
        s, shift = scale[o], get(bias, o) if biased else np.float32(0)
        for r in range(0, rows - 3, 4):
            a, b, c, d = _four(x, r * pitch, pitch, weight, o * step, inner)
            put(y, r * outer + o, a * s + shift)
            put(y, (r + 1) * outer + o, b * s + shift)
            put(y, (r + 2) * outer + o, c * s + shift)
            put(y, (r + 3) * outer + o, d * s + shift)
        for r in range(rows // 4 * 4, rows):
            put(y, r * outer + o, _one(x, r * pitch, weight, o * step, inner) * s + shift)


@njit(nogil=True, cache=True)
def rows_of(first, last, sizes, addresses, sample):
    """Rows [first, last) of y (ids, inner), each a row of the table. Raises IndexError where it has none.

    ``sizes``: inner, outer and the stride of rows of weight; ``addresses``: ids (int64), weight, scale and y.
    """
    inner, outer, step = sizes
    ids, weight = at(addresses[0], _ID), at(addresses[1], _WEIGHT)
    scale, y = at(addresses[2], _SCALE), at(addresses[3], sample)
    for r in range(first, last):
        row = ids[r]
        if not 0 <= row < outer:
            raise IndexError("the table has no such row")
        s = scale[row]
        for k in range(0, inner, LANES):
            store_some(y, r * inner + k, inner - k, load_some(weight, row * step + k, inner - k) * s)
