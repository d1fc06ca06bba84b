"""Numba kernel of the linear map of few rows: one tile is sixteen outputs, whose weights are read in order.

One stream of memory, straight on, is what the processor's prefetching follows best: four or eight rows of
weights side by side were slower, for bfloat16 by half. The inputs are widened once, and four rows of them
meet each weight while it is in a register. A row's sums are taken in the same order however
many rows there are.
"""

from numba import njit

from hippodrome.ops._address_kernel import SAMPLES, at
from hippodrome.ops._lanes_kernel import LANES, get, load, load_some, put, scratch, store, total, zeros

OUTPUTS = 16
__all__ = ["OUTPUTS", "SAMPLES", "product"]


@njit(nogil=True, inline="always")
def _one(x, i, weight, j, whole, inner):
    """The product of one row of inputs with one of weights. Four sums at once hide the latency of one."""
    a, b, c, d = zeros(weight), zeros(weight), zeros(weight), zeros(weight)
    for k in range(0, whole, 4 * LANES):
        a = a + load(x, i + k) * load(weight, j + k)
        b = b + load(x, i + k + LANES) * load(weight, j + k + LANES)
        c = c + load(x, i + k + 2 * LANES) * load(weight, j + k + 2 * LANES)
        d = d + load(x, i + k + 3 * LANES) * load(weight, j + k + 3 * LANES)
    for k in range(whole, inner, LANES):
        a = a + load(x, i + k) * load_some(weight, j + k, inner - k)
    return total((a + b) + (c + d))


@njit(nogil=True, inline="always")
def _four(x, i0, i1, i2, i3, weight, j, whole, inner):
    """The same for four rows of inputs."""
    z = zeros(weight)
    a0, b0, c0, d0 = z, z, z, z
    a1, b1, c1, d1 = z, z, z, z
    a2, b2, c2, d2 = z, z, z, z
    a3, b3, c3, d3 = z, z, z, z
    for k in range(0, whole, 4 * LANES):
        w = load(weight, j + k)
        a0 = a0 + load(x, i0 + k) * w
        a1 = a1 + load(x, i1 + k) * w
        a2 = a2 + load(x, i2 + k) * w
        a3 = a3 + load(x, i3 + k) * w
        w = load(weight, j + k + LANES)
        b0 = b0 + load(x, i0 + k + LANES) * w
        b1 = b1 + load(x, i1 + k + LANES) * w
        b2 = b2 + load(x, i2 + k + LANES) * w
        b3 = b3 + load(x, i3 + k + LANES) * w
        w = load(weight, j + k + 2 * LANES)
        c0 = c0 + load(x, i0 + k + 2 * LANES) * w
        c1 = c1 + load(x, i1 + k + 2 * LANES) * w
        c2 = c2 + load(x, i2 + k + 2 * LANES) * w
        c3 = c3 + load(x, i3 + k + 2 * LANES) * w
        w = load(weight, j + k + 3 * LANES)
        d0 = d0 + load(x, i0 + k + 3 * LANES) * w
        d1 = d1 + load(x, i1 + k + 3 * LANES) * w
        d2 = d2 + load(x, i2 + k + 3 * LANES) * w
        d3 = d3 + load(x, i3 + k + 3 * LANES) * w
    for k in range(whole, inner, LANES):
        w = load_some(weight, j + k, inner - k)
        a0 = a0 + load(x, i0 + k) * w
        a1 = a1 + load(x, i1 + k) * w
        a2 = a2 + load(x, i2 + k) * w
        a3 = a3 + load(x, i3 + k) * w
    return (
        total((a0 + b0) + (c0 + d0)),
        total((a1 + b1) + (c1 + d1)),
        total((a2 + b2) + (c2 + d2)),
        total((a3 + b3) + (c3 + d3)),
    )


@njit(nogil=True, cache=True)
def product(first, last, sizes, addresses, sample):
    """Tiles [first, last) of y (rows, outer); ``sizes``: rows, inner, outer, and the strides of rows of x and
    weight; ``addresses``: x, weight, bias (or 0) and y, all of the sample's dtype.
    """
    rows, inner, outer, x_row, step = sizes
    source, weight = at(addresses[0], sample), at(addresses[1], sample)
    bias, y = at(addresses[2], sample), at(addresses[3], sample)
    biased = addresses[2] != 0
    whole = inner // (4 * LANES) * 4 * LANES
    width = -(-inner // LANES) * LANES
    x = scratch(rows * width, sample)
    for r in range(rows):
        for k in range(0, inner, LANES):
            store(x, r * width + k, load_some(source, r * x_row + k, inner - k))
    for o in range(first * OUTPUTS, min(last * OUTPUTS, outer)):
        shift = get(bias, o) if biased else x.dtype.type(0)
        if rows == 1:
            put(y, o, _one(x, 0, weight, o * step, whole, inner) + shift)
            continue
        for r in range(0, rows, 4):
            # Where rows run out the last one is taken again.
            r1, r2, r3 = min(r + 1, rows - 1), min(r + 2, rows - 1), min(r + 3, rows - 1)
            v0, v1, v2, v3 = _four(
                x, r * width, r1 * width, r2 * width, r3 * width, weight, o * step, whole, inner
            )
            put(y, r * outer + o, v0 + shift)
            put(y, r1 * outer + o, v1 + shift)
            put(y, r2 * outer + o, v2 + shift)
            put(y, r3 * outer + o, v3 + shift)
