"""Numba kernels of the root-mean-square norm: gate, mean square and scale of a row in one visit, both ways.

A tile is ``ROWS`` rows. The gated values of a run of channels stay in a small buffer between the pass that
sums their squares and the pass that scales them, so that a row is read from memory once. The backward pass
forms the mean square anew, which costs less than to store and read it, and leaves each tile's gradient of the
weights.

x, z and the gradient of y come as flat arrays with the stride of their rows; ``z`` is empty where there is no
gate. ``sizes`` is (rows, d, groups).
"""

import math

from numba import njit

from hippodrome.ops._lanes_kernel import (
    LANES,
    load,
    load_some,
    scratch,
    sigmoid,
    store,
    store_some,
    total,
    zeros,
)

ROWS = 32


@njit(nogil=True, cache=True, inline="always")
def gate(x, at, z, at_z, i, size, v, s, squares):
    """v = x or x silu(z) of some lanes from ``i`` on, sigmoid(z) in ``s``; adds to the sum of the squares."""
    value = load_some(x, at + i, size)
    if z.size > 0:
        raw = load_some(z, at_z + i, size)
        open_ = sigmoid(raw)
        store(s, i, open_)
        value = value * raw * open_
    store(v, i, value)
    return squares + value * value


@njit(nogil=True, cache=True, inline="always")
def mean_square(x, at, z, at_z, length, v, s):
    """``gate`` of one run; returns its mean square. The size of whole lanes is a constant, so no branch."""
    squares, whole = zeros(v), length - length % LANES
    for i in range(0, whole, LANES):
        squares = gate(x, at, z, at_z, i, LANES, v, s, squares)
    if whole < length:
        squares = gate(x, at, z, at_z, whole, length - whole, v, s, squares)
    return total(squares) / length


@njit(nogil=True, cache=True)
def forward(first, last, x, stride, weight, z, stride_z, sizes, eps, y):
    """Tiles [first, last)."""
    rows, d, groups = sizes
    length = d // groups
    whole, rest = length - length % LANES, length % LANES
    v, s = scratch(length + LANES, x), scratch(length + LANES, x)
    for row in range(first * ROWS, min(last * ROWS, rows)):
        for c in range(0, d, length):
            at = row * d + c
            rate = 1.0 / math.sqrt(
                mean_square(x, row * stride + c, z, row * stride_z + c, length, v, s) + eps
            )
            for i in range(0, whole, LANES):
                store(y, at + i, load(v, i) * rate * load(weight, c + i))
            if rest:
                store_some(y, at + whole, rest, load(v, whole) * rate * load_some(weight, c + whole, rest))


@njit(nogil=True, cache=True)
def backward(
    first, last, grad_y, stride_y, x, stride, weight, z, stride_z, sizes, eps, grad_x, grad_z, partial
):  # fmt: skip
    """Tiles [first, last); ``partial`` (tiles, d) gets each tile's gradient of the weights."""
    rows, d, groups = sizes
    length = d // groups
    v, s = scratch(length + LANES, x), scratch(length + LANES, x)
    sums = scratch(d + LANES, x)
    for tile in range(first, last):
        sums[:] = 0
        for row in range(tile * ROWS, min((tile + 1) * ROWS, rows)):
            for c in range(0, d, length):
                at, at_z, at_y, out = row * stride + c, row * stride_z + c, row * stride_y + c, row * d + c
                rate = 1.0 / math.sqrt(mean_square(x, at, z, at_z, length, v, s) + eps)
                shared = zeros(v)
                for i in range(0, length, LANES):
                    size = length - i
                    product = load_some(grad_y, at_y + i, size) * load(v, i)
                    shared = shared + product * load_some(weight, c + i, size)
                    store_some(sums, c + i, size, load_some(sums, c + i, size) + product * rate)
                back = total(shared) * rate * rate * rate / length
                for i in range(0, length, LANES):
                    size = length - i
                    grad = load_some(grad_y, at_y + i, size) * load_some(weight, c + i, size) * rate
                    grad = grad + load(v, i) * -back
                    if z.size > 0:
                        raw, open_ = load_some(z, at_z + i, size), load(s, i)
                        slope = open_ + raw * open_ * (1.0 - open_)
                        store_some(grad_z, out + i, size, grad * slope * load_some(x, at + i, size))
                        grad = grad * raw * open_
                    store_some(grad_x, out + i, size, grad)
        for i in range(0, d, LANES):
            store_some(partial, tile * d + i, d - i, load(sums, i))
