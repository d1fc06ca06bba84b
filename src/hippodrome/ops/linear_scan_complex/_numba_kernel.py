"""Numba kernels of the complex linear scan: a tile is a batch row and a block of channels, time runs inside.

Tensors come with real and imaginary part interleaved in the last axis, (b, t, 2 d). In a tile both parts of
the state lie apart, so that the inner loop over channels is the same arithmetic on every lane. The decays
come as (b, t, 2 d), or as (1, 1, 2 d) where they are constant in time: every step then reads the one row.
"""

import numpy as np
from numba import njit

BLOCK = 128
FAST = {"contract", "reassoc", "nsz", "arcp"}


def blocks(d):
    """How many tiles a row of d complex channels is cut into."""
    return (d + BLOCK - 1) // BLOCK


@njit(nogil=True, cache=True, fastmath=FAST)
def forward(first, last_tile, constant, a, x, state, resets, h, last):
    """Tiles [first, last_tile): h[t] = a[t] h[t-1] + x[t]; a is (1, 1, 2 d) where it is ``constant``."""
    _, steps, d = x.shape
    d = d // 2
    per_row = (d + BLOCK - 1) // BLOCK
    any_resets = resets.size > 0
    re, im = np.empty(BLOCK, x.dtype), np.empty(BLOCK, x.dtype)
    for tile in range(first, last_tile):
        b = tile // per_row
        start = (tile % per_row) * BLOCK
        size = min(BLOCK, d - start)
        low, high = 2 * start, 2 * (start + size)
        for i in range(size):
            re[i], im[i] = state[b, low + 2 * i], state[b, low + 2 * i + 1]
        for t in range(steps):
            if any_resets and resets[b, t]:
                re[:], im[:] = 0, 0
            at = a[0, 0, low:high] if constant else a[b, t, low:high]
            xt = x[b, t, low:high]
            ht = h[b, t, low:high]
            for i in range(size):
                p, q = at[2 * i], at[2 * i + 1]
                u = p * re[i] - q * im[i] + xt[2 * i]
                v = p * im[i] + q * re[i] + xt[2 * i + 1]
                re[i], im[i] = u, v
                ht[2 * i], ht[2 * i + 1] = u, v
        for i in range(size):
            last[b, low + 2 * i], last[b, low + 2 * i + 1] = re[i], im[i]


@njit(nogil=True, cache=True, fastmath=FAST)
def backward(
    first, last_tile, constant, a, state, resets, h, grad_h, grad_last, grad_a, part_a, grad_x, grad_state
):
    """Tiles [first, last_tile): g[t] = grad_h[t] + conj(a[t+1]) g[t+1].

    The gradient of a goes to ``grad_a`` (b, t, 2 d); where a is constant it is summed over time in float64
    and goes, apart for each batch row, to ``part_a`` (b, 2 d).
    """
    _, steps, d = h.shape
    d = d // 2
    per_row = (d + BLOCK - 1) // BLOCK
    any_resets = resets.size > 0
    re, im = np.empty(BLOCK, h.dtype), np.empty(BLOCK, h.dtype)
    sum_re, sum_im = np.empty(BLOCK), np.empty(BLOCK)
    for tile in range(first, last_tile):
        b = tile // per_row
        start = (tile % per_row) * BLOCK
        size = min(BLOCK, d - start)
        low, high = 2 * start, 2 * (start + size)
        sum_re[:], sum_im[:] = 0, 0
        for i in range(size):
            re[i], im[i] = grad_last[b, low + 2 * i], grad_last[b, low + 2 * i + 1]
        for t in range(steps - 1, -1, -1):
            at = a[0, 0, low:high] if constant else a[b, t, low:high]
            gh = grad_h[b, t, low:high]
            gx = grad_x[b, t, low:high]
            before = h[b, t - 1, low:high] if t > 0 else state[b, low:high]
            reset = any_resets and resets[b, t]
            for i in range(size):
                re[i] += gh[2 * i]
                im[i] += gh[2 * i + 1]
                gx[2 * i], gx[2 * i + 1] = re[i], im[i]
            if constant:
                if not reset:
                    for i in range(size):
                        u, v = before[2 * i], before[2 * i + 1]
                        sum_re[i] += re[i] * u + im[i] * v
                        sum_im[i] += im[i] * u - re[i] * v
            else:
                ga = grad_a[b, t, low:high]
                if reset:
                    ga[:] = 0
                else:
                    for i in range(size):
                        u, v = before[2 * i], before[2 * i + 1]
                        ga[2 * i] = re[i] * u + im[i] * v
                        ga[2 * i + 1] = im[i] * u - re[i] * v
            if reset:
                re[:], im[:] = 0, 0
            else:
                for i in range(size):
                    p, q = at[2 * i], at[2 * i + 1]
                    u, v = re[i], im[i]
                    re[i] = p * u + q * v
                    im[i] = p * v - q * u
        for i in range(size):
            grad_state[b, low + 2 * i], grad_state[b, low + 2 * i + 1] = re[i], im[i]
        if constant:
            for i in range(size):
                part_a[b, low + 2 * i], part_a[b, low + 2 * i + 1] = sum_re[i], sum_im[i]
