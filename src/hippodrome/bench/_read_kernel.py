"""Numba kernel that does nothing but read memory: the floor of whatever must read all weights once."""

from numba import njit

from hippodrome.ops._lanes_kernel import LANES, load, total, zeros


@njit(nogil=True, cache=True)
def read(first, last, x, width, sums):
    """Sums of rows [first, last) of a flat array of float32, ``width`` numbers each, a multiple of 64.

    Four sums of whole vectors at once: one would wait for its additions, not for the memory.
    """
    for row in range(first, last):
        low = row * width
        a, b, c, d = zeros(x), zeros(x), zeros(x), zeros(x)
        for i in range(low, low + width, 4 * LANES):
            a = a + load(x, i)
            b = b + load(x, i + LANES)
            c = c + load(x, i + 2 * LANES)
            d = d + load(x, i + 3 * LANES)
        sums[row] = total((a + b) + (c + d))
