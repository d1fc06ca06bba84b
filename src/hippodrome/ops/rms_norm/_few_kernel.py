"""Numba kernel of the norm of a few rows: two visits of each row."""

import math

import numpy as np
from numba import njit

from hippodrome.ops._address_kernel import SAMPLES, at
from hippodrome.ops._lanes_kernel import (
    LANES,
    load,
    load_some,
    scratch,
    sigmoid,
    store,
    store_some,
    total,
    wide,
    zeros,
)

__all__ = ["SAMPLES", "norm"]


@njit(nogil=True, cache=True)
def norm(first, last, sizes, eps, addresses, sample, weights):
    """Tiles [first, last), a group of channels of a row each.

    ``addresses``: x, z (or 0) and y of the first sample's dtype, and weight of the second's; ``sizes``: rows,
    channels, groups, and the strides of rows of x and z.
    """
    _, d, groups, x_row, z_row = sizes
    x, z, y = at(addresses[0], sample), at(addresses[1], sample), at(addresses[2], sample)
    weight = at(addresses[3], weights)
    width = d // groups
    values = scratch(width + LANES, sample)
    for tile in range(first, last):
        row, start = tile // groups, tile % groups * width
        square = wide(zeros(sample))
        for c in range(0, width, LANES):
            size = width - c
            v = load_some(x, row * x_row + start + c, size)
            if addresses[1] != 0:
                gate = load_some(z, row * z_row + start + c, size)
                v = v * gate * sigmoid(gate)
            store(values, c, v)
            square = square + wide(v * v)
        scale = values.dtype.type(np.float64(1.0) / math.sqrt(total(square) / width + eps))
        for c in range(0, width, LANES):
            size = width - c
            v = load(values, c) * scale * load_some(weight, start + c, size)
            store_some(y, row * d + start + c, size, v)
