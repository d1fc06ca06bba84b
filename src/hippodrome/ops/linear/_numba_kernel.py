"""Numba kernel of the linear map of few rows: one tile is sixteen outputs, whose weights are read in order.

One stream of memory, straight on, is what the processor's prefetching follows best: four or eight rows of
weights side by side were slower, for bfloat16 by half. Further rows of the input find the weights of an
output in the near cache.
"""

from numba import njit

from hippodrome.ops._address_kernel import SAMPLES, at
from hippodrome.ops._lanes_kernel import LANES, get, load, load_some, put, total, zeros

OUTPUTS = 16
__all__ = ["OUTPUTS", "SAMPLES", "product"]


@njit(nogil=True, cache=True)
def product(first, last, sizes, addresses, sample):
    """Tiles [first, last) of y (rows, outer); ``sizes``: rows, inner, outer, and the strides of rows of x and
    weight; ``addresses``: x, weight, bias (or 0) and y, all of the sample's dtype.
    """
    rows, inner, outer, x_row, step = sizes
    x, weight = at(addresses[0], sample), at(addresses[1], sample)
    bias, y = at(addresses[2], sample), at(addresses[3], sample)
    biased = addresses[2] != 0
    # Four sums at once hide the latency of one.
    whole = inner // (4 * LANES) * 4 * LANES
    for o in range(first * OUTPUTS, min(last * OUTPUTS, outer)):
        j = o * step
        for r in range(rows):
            i = r * x_row
            a, b, c, d = zeros(weight), zeros(weight), zeros(weight), zeros(weight)
            for k in range(0, whole, 4 * LANES):
                a = a + load(x, i + k) * load(weight, j + k)
                b = b + load(x, i + k + LANES) * load(weight, j + k + LANES)
                c = c + load(x, i + k + 2 * LANES) * load(weight, j + k + 2 * LANES)
                d = d + load(x, i + k + 3 * LANES) * load(weight, j + k + 3 * LANES)
            for k in range(whole, inner, LANES):
                a = a + load_some(x, i + k, inner - k) * load_some(weight, j + k, inner - k)
            value = total((a + b) + (c + d))
            put(y, r * outer + o, value + get(bias, o) if biased else value)
