"""Numba kernel of one token of SSD: one tile is one head of one batch row, whose state passes by once."""

import math

from numba import njit

from hippodrome.ops._address_kernel import SAMPLES, at
from hippodrome.ops._lanes_kernel import LANES, get, load, load_some, put, store, store_some, total, zeros

__all__ = ["SAMPLES", "update"]


@njit(nogil=True, cache=True)
def update(first, last, sizes, strides, use_softplus, low, high, addresses, sample, steps, states):
    """Tiles [first, last); ``addresses``: x, B, C, dt, A, D (or 0), bias (or 0), state and y.

    The samples are of x, B, C and y, of dt, and of all else.
    """
    h, p, n, g = sizes
    x_b, x_h, dt_b, B_b, B_g, C_b, C_g = strides
    x, B, C, y = (
        at(addresses[0], sample),
        at(addresses[1], sample),
        at(addresses[2], sample),
        at(addresses[8], sample),
    )
    dt, A, D = at(addresses[3], steps), at(addresses[4], states), at(addresses[5], states)
    bias, state = at(addresses[6], states), at(addresses[7], states)
    whole = n // LANES * LANES
    rest = n - whole
    for tile in range(first, last):
        head, b = tile % h, tile // h
        part = head // (h // g)
        size = get(dt, b * dt_b + head) + A.dtype.type(0)
        if addresses[6] != 0:
            size = size + bias[head]
        if use_softplus:
            size = max(size, A.dtype.type(0)) + A.dtype.type(math.log1p(math.exp(-abs(size))))
        # Written so that NaN passes: each comparison is false for it.
        size = A.dtype.type(low) if size < low else size
        size = A.dtype.type(high) if size > high else size
        decay = A.dtype.type(math.exp(size * A[head]))
        skip = D[head] if addresses[5] != 0 else A.dtype.type(0)
        jb, jc = b * B_b + part * B_g, b * C_b + part * C_g
        for i in range(p):
            value = get(x, b * x_b + head * x_h + i) + A.dtype.type(0)
            drive = value * size
            place = (tile * p + i) * n
            out = zeros(states)
            for k in range(0, whole, LANES):
                v = load(state, place + k) * decay + load(B, jb + k) * drive
                store(state, place + k, v)
                out = out + v * load(C, jc + k)
            if rest:
                v = load_some(state, place + whole, rest) * decay + load_some(B, jb + whole, rest) * drive
                store_some(state, place + whole, rest, v)
                out = out + v * load_some(C, jc + whole, rest)
            put(y, tile * p + i, total(out) + skip * value)
