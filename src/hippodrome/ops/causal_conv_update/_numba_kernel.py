"""Numba kernel of one token of the causal convolution: it shifts the window."""

from numba import njit

from hippodrome.ops._address_kernel import SAMPLES, at
from hippodrome.ops._lanes_kernel import (
    LANES,
    get,
    load,
    load_some,
    put,
    scratch,
    sigmoid,
    store_some,
    zeros,
)

__all__ = ["LANES", "SAMPLES", "update"]


@njit(nogil=True, cache=True)
def update(first, last, sizes, silu, addresses, sample, weights, states):
    """Tiles [first, last) of sixteen channels, all rows; ``addresses``: x, weight (d, w), bias (or 0), state
    and y.

    The samples are of x and y, of weight and bias, and of the state.
    """
    rows, d, w, x_row = sizes
    x, y, state = at(addresses[0], sample), at(addresses[4], sample), at(addresses[3], states)
    weight, bias = at(addresses[1], weights), at(addresses[2], weights)
    taps = scratch(w * LANES, states)
    for c in range(first * LANES, min(last * LANES, d), LANES):
        size = min(d - c, LANES)
        for i in range(size):
            for k in range(w):
                put(taps, k * LANES + i, get(weight, (c + i) * w + k))
        for b in range(rows):
            window = b * (w - 1) * d + c
            newest = load_some(x, b * x_row + c, size)
            out = newest * load(taps, (w - 1) * LANES)
            if addresses[2] != 0:
                out = out + load_some(bias, c, size)
            for k in range(w - 1):
                value = load_some(state, window + k * d, size)
                out = out + value * load(taps, k * LANES)
                if k:
                    store_some(state, window + (k - 1) * d, size, value)
            if w > 1:
                store_some(state, window + (w - 2) * d, size, newest + zeros(states))
            store_some(y, b * d + c, size, out * sigmoid(out) if silu else out)
