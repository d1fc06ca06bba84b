"""Numba kernel that turns a matrix of float32 over: sixteen by sixteen numbers at a time in registers.

A tile is a few cache lines of columns over all rows, so that what is read comes in whole lines and what is
written goes on along rows of the result.
"""

from numba import njit

from hippodrome.ops._address_kernel import SAMPLES, at
from hippodrome.ops._chunks_kernel import turn
from hippodrome.ops._lanes_kernel import LANES, prefetch

COLUMNS = 16 * LANES
__all__ = ["COLUMNS", "SAMPLES", "turned"]


@njit(nogil=True, cache=True)
def turned(first, last, sizes, addresses, sample):
    """Tiles [first, last) of target (columns, rows) from source (rows, columns), rows ``pitch`` apart.

    ``sizes``: rows, columns, pitch; ``addresses``: source, target.
    """
    rows, columns, pitch = sizes
    source, target = at(addresses[0], sample), at(addresses[1], sample)
    whole = rows // LANES * LANES
    for tile in range(first, last):
        low, high = tile * COLUMNS, min((tile + 1) * COLUMNS, columns)
        inside = low + (high - low) // LANES * LANES
        for i in range(0, whole, LANES):
            for j in range(LANES):
                for c in range(low, inside, LANES):
                    prefetch(source, (i + LANES + j) * pitch + c, 0)
            for c in range(low, inside, LANES):
                turn(source, i * pitch + c, pitch, target, c * rows + i, rows)
            for c in range(inside, high):
                for j in range(i, i + LANES):
                    target[c * rows + j] = source[j * pitch + c]
        for i in range(whole, rows):
            for c in range(low, high):
                target[c * rows + i] = source[i * pitch + c]
