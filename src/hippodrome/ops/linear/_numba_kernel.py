"""Numba kernel of the linear map of few rows: one tile is eight outputs, whose weights are read side by side.

Eight streams of memory at once are what one core needs to come near the memory's speed. Further rows of the
input find the tile's weights in the near cache.
"""

from numba import njit

from hippodrome.ops._address_kernel import SAMPLES, at
from hippodrome.ops._lanes_kernel import LANES, get, load, load_some, put, total, zeros

OUTPUTS = 8
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
    whole = inner // LANES * LANES
    rest = inner - whole
    for tile in range(first, last):
        low = tile * OUTPUTS
        start = low * step
        for r in range(rows):
            begin, out = r * x_row, r * outer + low
            if low + OUTPUTS <= outer:
                a, b, c, d = zeros(weight), zeros(weight), zeros(weight), zeros(weight)
                e, f, g, h = zeros(weight), zeros(weight), zeros(weight), zeros(weight)
                for i in range(0, whole, LANES):
                    u, j = load(x, begin + i), start + i
                    a, b = a + u * load(weight, j), b + u * load(weight, j + step)
                    c, d = c + u * load(weight, j + 2 * step), d + u * load(weight, j + 3 * step)
                    e, f = e + u * load(weight, j + 4 * step), f + u * load(weight, j + 5 * step)
                    g, h = g + u * load(weight, j + 6 * step), h + u * load(weight, j + 7 * step)
                if rest:
                    u, j = load_some(x, begin + whole, rest), start + whole
                    a, b = a + u * load_some(weight, j, rest), b + u * load_some(weight, j + step, rest)
                    c = c + u * load_some(weight, j + 2 * step, rest)
                    d = d + u * load_some(weight, j + 3 * step, rest)
                    e = e + u * load_some(weight, j + 4 * step, rest)
                    f = f + u * load_some(weight, j + 5 * step, rest)
                    g = g + u * load_some(weight, j + 6 * step, rest)
                    h = h + u * load_some(weight, j + 7 * step, rest)
                if biased:
                    put(y, out, total(a) + get(bias, low))
                    put(y, out + 1, total(b) + get(bias, low + 1))
                    put(y, out + 2, total(c) + get(bias, low + 2))
                    put(y, out + 3, total(d) + get(bias, low + 3))
                    put(y, out + 4, total(e) + get(bias, low + 4))
                    put(y, out + 5, total(f) + get(bias, low + 5))
                    put(y, out + 6, total(g) + get(bias, low + 6))
                    put(y, out + 7, total(h) + get(bias, low + 7))
                else:
                    put(y, out, total(a))
                    put(y, out + 1, total(b))
                    put(y, out + 2, total(c))
                    put(y, out + 3, total(d))
                    put(y, out + 4, total(e))
                    put(y, out + 5, total(f))
                    put(y, out + 6, total(g))
                    put(y, out + 7, total(h))
            else:
                for k in range(outer - low):
                    a = zeros(weight)
                    for i in range(0, whole, LANES):
                        a = a + load(x, begin + i) * load(weight, start + k * step + i)
                    if rest:
                        a = a + load_some(x, begin + whole, rest) * load_some(
                            weight, start + k * step + whole, rest
                        )
                    put(y, out + k, total(a) + get(bias, low + k) if biased else total(a))
