"""Small Numba kernels on which tapes are tested."""

from numba import njit


@njit(nogil=True)
def doubled(first, last, x, y):
    """y = 2 x on [first, last)."""
    for i in range(first, last):
        y[i] = 2 * x[i]


@njit(nogil=True)
def refusing(first, last, x):
    """A kernel that raises on its first tile."""
    for i in range(first, last):
        if i == 0:
            raise ValueError("no")
        x[i] = 1
