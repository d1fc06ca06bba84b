"""Numba kernels of what PyTorch does between the products of one token: arithmetic on numbers one by one.

PyTorch has each of these operations, at the price of a call of several microseconds. A tape (``ops._tape``)
runs them here instead, between the other kernels.
"""

import math

from numba import njit

from hippodrome.ops._address_kernel import SAMPLES, at
from hippodrome.ops._lanes_kernel import (
    LANES,
    LOG2_E,
    _positive_part,
    exp2,
    get,
    load,
    load_some,
    put,
    scratch,
    sigmoid,
    softplus,
    spread,
    store,
    store_some,
    zeros,
)

__all__ = ["BLOCK", "CODES", "SAMPLES", "apply", "look_up"]

BLOCK = 512
"""Numbers of a tile, along the last axis."""
CODES = {
    name: code
    for code, name in enumerate(
        (
            "copy",
            "add",
            "mul",
            "div",
            "exp",
            "sigmoid",
            "silu",
            "tanh",
            "relu",
            "softplus",
            "gelu",
            "gelu_tanh",
            "rsqrt",
            "minimum",
            "maximum",
        )
    )
}
_ROOT = 0.7071067811865476
_SLOPE = 0.7978845608028654
_CUBE = 0.044715


@njit(nogil=True, inline="always")
def _take(x, index, stride, size, room):
    """Up to sixteen numbers, one each ``stride``."""
    if stride == 1:
        value = load_some(x, index, size)
    elif stride == 0:
        value = spread(x, index)
    else:
        for i in range(min(size, LANES)):
            put(room, i, get(x, index + i * stride))
        value = load(room, 0)
    return value


@njit(nogil=True, inline="always")
def _smaller(a, b, room, other):
    store(room, 0, a)
    store(other, 0, b)
    for i in range(LANES):
        # NaN of either comes through, as in PyTorch.
        if other[i] < room[i] or other[i] != other[i]:
            room[i] = other[i]
    return load(room, 0)


@njit(nogil=True, cache=True)
def apply(first, last, code, sizes, strides, numbers, addresses, sample, second, result):
    """y = f(a, b), tiles [first, last): runs of ``BLOCK`` numbers along the last of four axes.

    ``strides``: of a, of b and of y, four each; ``addresses``: a, b (or 0, then b is the second number) and
    y, of the dtypes of the three samples; the first number multiplies b in a sum.
    """
    _, n1, n2, n = sizes
    a, b, y = at(addresses[0], sample), at(addresses[1], second), at(addresses[2], result)
    s, t, u = strides[0:4], strides[4:8], strides[8:12]
    blocks = (n + BLOCK - 1) // BLOCK
    room, other = scratch(LANES, result), scratch(LANES, result)
    alpha, number = room.dtype.type(numbers[0]), room.dtype.type(numbers[1])
    for tile in range(first, last):
        block, row = tile % blocks, tile // blocks
        i2, i1, i0 = row % n2, row // n2 % n1, row // n2 // n1
        ia, ib, iy = (
            i0 * s[0] + i1 * s[1] + i2 * s[2],
            i0 * t[0] + i1 * t[1] + i2 * t[2],
            i0 * u[0] + i1 * u[1] + i2 * u[2],
        )
        end = min(n, (block + 1) * BLOCK)
        for c in range(block * BLOCK, end, LANES):
            size = end - c
            x = _take(a, ia + c * s[3], s[3], size, room) + zeros(result)
            w = zeros(result) + number
            if addresses[1] != 0:
                w = _take(b, ib + c * t[3], t[3], size, other) + zeros(result)
            if code == 1:
                x = x + w * alpha
            elif code == 2:
                x = x * w
            elif code == 3:
                x = x / w
            elif code == 4:
                x = exp2(x * LOG2_E)
            elif code == 5:
                x = sigmoid(x)
            elif code == 6:
                x = x * sigmoid(x)
            elif code == 7:
                x = sigmoid(x * 2.0) * 2.0 - 1.0
            elif code == 8:
                x = _positive_part(x)
            elif code == 9:
                x = softplus(x)
            elif code == 10:
                store(room, 0, x * _ROOT)
                for i in range(LANES):
                    room[i] = 0.5 * (1.0 + math.erf(room[i]))
                x = x * load(room, 0)
            elif code == 11:
                x = x * sigmoid((x + x * x * x * _CUBE) * (2.0 * _SLOPE))
            elif code == 12:
                store(room, 0, x)
                for i in range(LANES):
                    room[i] = 1.0 / math.sqrt(room[i])
                x = load(room, 0)
            elif code == 13:
                x = _smaller(x, w, room, other)
            elif code == 14:
                x = _smaller(x * -1.0, w * -1.0, room, other) * -1.0
            if u[3] == 1:
                store_some(y, iy + c, size, x)
            else:
                store(room, 0, x)
                for i in range(min(size, LANES)):
                    put(y, iy + (c + i) * u[3], room[i])


@njit(nogil=True, cache=True)
def look_up(first, last, sizes, addresses, whole, sample):
    """Rows [first, last) of y: those of a table by their numbers; ``sizes``: its rows, channels and stride.

    ``addresses``: numbers (int64), table and y. Raises IndexError for a number that is no row.
    """
    count, d, step = sizes
    ids, table, y = at(addresses[0], whole), at(addresses[1], sample), at(addresses[2], sample)
    for row in range(first, last):
        if not 0 <= ids[row] < count:
            raise IndexError("the table has no such row")
        for c in range(0, d, LANES):
            store_some(y, row * d + c, d - c, load_some(table, ids[row] * step + c, d - c))
