"""Numba kernels of the root-mean-square norm: gate, mean square and scale of a row in one visit, both ways.

A tile is ``ROWS`` rows. A row is read from memory once and a second time from cache: the first pass sums, the
second writes. Where there is a gate, the first pass keeps what took an exponential in a small buffer. The
backward pass forms the mean square anew, which costs less than to store and read it; the other sum that a run
shares, of the gradient times the scaled values, does not need the mean square and is taken on the way. Each
tile leaves its gradient of the weights.

Loops over whole registers name their size by a constant, and the rest comes behind: a size known only as the
loop runs makes it several times as slow. Sums run in two halves, since one would wait for its last addition.

x, z and the gradient of y come as flat arrays with the stride of their rows; ``z`` is empty where there is no
gate. ``sizes`` is (rows, d, groups).
"""

import math

from numba import njit

from hippodrome.ops._lanes_kernel import (
    LANES,
    load,
    load_some,
    prefetch,
    scratch,
    sigmoid,
    store,
    store_some,
    total,
    zeros,
)

ROWS = 32


@njit(nogil=True, cache=True, inline="always")
def gate(x, at, z, at_z, i, size, v):
    """x silu(z) of some lanes from ``i`` on, kept in ``v``."""
    raw = load_some(z, at_z + i, size)
    value = load_some(x, at + i, size) * raw * sigmoid(raw)
    store(v, i, value)
    return value


@njit(nogil=True, cache=True)
def squares_gated(x, at, z, at_z, length, v):
    """The sum of the squares of one gated run, whose values are kept in ``v``."""
    whole, even, odd = length - length % LANES, zeros(v), zeros(v)
    for i in range(0, whole, LANES):
        value = gate(x, at, z, at_z, i, LANES, v)
        even = even + value * value
    if whole < length:
        value = gate(x, at, z, at_z, whole, length - whole, v)
        odd = odd + value * value
    return total(even + odd)


@njit(nogil=True, cache=True)
def squares(x, at, length):
    """The sum of the squares of one run."""
    whole, even, odd = length - length % LANES, zeros(x), zeros(x)
    for i in range(0, whole - LANES, 2 * LANES):
        low, high = load(x, at + i), load(x, at + i + LANES)
        even, odd = even + low * low, odd + high * high
    if whole % (2 * LANES):
        low = load(x, at + whole - LANES)
        even = even + low * low
    if whole < length:
        high = load_some(x, at + whole, length - whole)
        odd = odd + high * high
    return total(even + odd)


@njit(nogil=True, cache=True)
def forward(first, last, x, stride, weight, z, stride_z, sizes, eps, y):
    """Tiles [first, last)."""
    rows, d, groups = sizes
    length = d // groups
    whole, rest = length - length % LANES, length % LANES
    v = scratch(length + LANES, x)
    for row in range(first * ROWS, min(last * ROWS, rows)):
        for c in range(0, d, length):
            at, out = row * stride + c, row * d + c
            if z.size > 0:
                rate = 1.0 / math.sqrt(squares_gated(x, at, z, row * stride_z + c, length, v) / length + eps)
                for i in range(0, whole, LANES):
                    store(y, out + i, load(v, i) * rate * load(weight, c + i))
                if rest:
                    value = load(v, whole) * rate * load_some(weight, c + whole, rest)
                    store_some(y, out + whole, rest, value)
            else:
                rate = 1.0 / math.sqrt(squares(x, at, length) / length + eps)
                for i in range(0, whole, LANES):
                    store(y, out + i, load(x, at + i) * rate * load(weight, c + i))
                if rest:
                    value = load_some(x, at + whole, rest) * rate * load_some(weight, c + whole, rest)
                    store_some(y, out + whole, rest, value)


@njit(nogil=True, cache=True, inline="always")
def slopes(grad_y, at_y, weight, c, x, at, i, size, rate, back, sums, grad_x, out):
    """The gradient of x of some lanes; adds to that of the weights."""
    grad, value = load_some(grad_y, at_y + i, size) * rate, load_some(x, at + i, size)
    store_some(sums, c + i, size, load_some(sums, c + i, size) + grad * value)
    store_some(grad_x, out + i, size, grad * load_some(weight, c + i, size) - value * back)


@njit(nogil=True, cache=True)
def backward_run(grad_y, at_y, weight, c, x, at, length, eps, sums, grad_x, out):
    """One run without a gate."""
    whole, rest = length - length % LANES, length % LANES
    even, odd, share, other = zeros(x), zeros(x), zeros(x), zeros(x)
    for i in range(0, whole - LANES, 2 * LANES):
        low, high = load(x, at + i), load(x, at + i + LANES)
        even, odd = even + low * low, odd + high * high
        share = share + low * load(grad_y, at_y + i) * load(weight, c + i)
        other = other + high * load(grad_y, at_y + i + LANES) * load(weight, c + i + LANES)
    if whole % (2 * LANES):
        i = whole - LANES
        low = load(x, at + i)
        even = even + low * low
        share = share + low * load(grad_y, at_y + i) * load(weight, c + i)
    if rest:
        high = load_some(x, at + whole, rest)
        odd = odd + high * high
        other = other + high * load_some(grad_y, at_y + whole, rest) * load_some(weight, c + whole, rest)
    rate = 1.0 / math.sqrt(total(even + odd) / length + eps)
    back = total(share + other) * rate * rate * rate / length
    for i in range(0, whole, LANES):
        slopes(grad_y, at_y, weight, c, x, at, i, LANES, rate, back, sums, grad_x, out)
    if rest:
        slopes(grad_y, at_y, weight, c, x, at, whole, rest, rate, back, sums, grad_x, out)


@njit(nogil=True, cache=True, inline="always")
def slopes_gated(
    grad_y, at_y, weight, c, x, at, z, at_z, i, size, s, rate, back, sums, grad_x, grad_z, out
):  # fmt: skip
    """The gradients of x and of the gate of some lanes; adds to that of the weights."""
    grad, given = load_some(grad_y, at_y + i, size) * rate, load_some(x, at + i, size)
    raw, share = load_some(z, at_z + i, size), load(s, i)
    silu = raw * share
    value = given * silu
    store_some(sums, c + i, size, load_some(sums, c + i, size) + grad * value)
    grad = grad * load_some(weight, c + i, size) - value * back
    store_some(grad_x, out + i, size, grad * silu)
    store_some(grad_z, out + i, size, grad * given * (share + silu * (1.0 - share)))


@njit(nogil=True, cache=True)
def backward_gated(
    grad_y, at_y, weight, c, x, at, z, at_z, length, eps, s, sums, grad_x, grad_z, out, next_y, next_x, next_z
):  # fmt: skip
    """One run with a gate; sigmoid(z) is kept in ``s``. ``next_*`` is where the next row lies.

    The first pass is bound by its exponentials and asks for the lines that the second writes, the second for
    those that the next row reads.
    """
    whole, rest = length - length % LANES, length % LANES
    square, share = zeros(s), zeros(s)
    for i in range(0, whole, LANES):
        prefetch(grad_x, out + i, 1)
        prefetch(grad_z, out + i, 1)
        raw = load(z, at_z + i)
        open_ = sigmoid(raw)
        store(s, i, open_)
        value = load(x, at + i) * raw * open_
        square = square + value * value
        share = share + value * load(grad_y, at_y + i) * load(weight, c + i)
    if rest:
        raw = load_some(z, at_z + whole, rest)
        open_ = sigmoid(raw)
        store(s, whole, open_)
        value = load_some(x, at + whole, rest) * raw * open_
        square = square + value * value
        share = share + value * load_some(grad_y, at_y + whole, rest) * load_some(weight, c + whole, rest)
    rate = 1.0 / math.sqrt(total(square) / length + eps)
    back = total(share) * rate * rate * rate / length
    for i in range(0, whole, LANES):
        prefetch(x, next_x + i, 0)
        prefetch(z, next_z + i, 0)
        prefetch(grad_y, next_y + i, 0)
        slopes_gated(
            grad_y, at_y, weight, c, x, at, z, at_z, i, LANES, s, rate, back, sums, grad_x, grad_z, out
        )
    if rest:
        slopes_gated(
            grad_y, at_y, weight, c, x, at, z, at_z, whole, rest, s, rate, back, sums, grad_x, grad_z, out
        )


@njit(nogil=True, cache=True)
def backward(
    first, last, grad_y, stride_y, x, stride, weight, z, stride_z, sizes, eps, grad_x, grad_z, partial
):  # fmt: skip
    """Tiles [first, last); ``partial`` (tiles, d) gets each tile's gradient of the weights."""
    rows, d, groups = sizes
    length = d // groups
    s, sums = scratch(length + LANES, x), scratch(d + LANES, x)
    for tile in range(first, last):
        sums[:] = 0
        for row in range(tile * ROWS, min((tile + 1) * ROWS, rows)):
            for c in range(0, d, length):
                at, at_z, at_y, out = row * stride + c, row * stride_z + c, row * stride_y + c, row * d + c
                if z.size > 0:
                    backward_gated(
                        grad_y, at_y, weight, c, x, at, z, at_z, length, eps, s, sums, grad_x, grad_z, out,
                        at_y + stride_y, at + stride, at_z + stride_z,
                    )  # fmt: skip
                else:
                    backward_run(grad_y, at_y, weight, c, x, at, length, eps, sums, grad_x, out)
        for i in range(0, d, LANES):
            store_some(partial, tile * d + i, d - i, load(sums, i))
