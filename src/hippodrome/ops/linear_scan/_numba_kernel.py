"""Numba kernels of the linear scan: one tile is one batch row and a block of channels, time runs inside.

The decays come as (b, t, d), or as (d) where they are constant in time; each form has a kernel of its own,
since these scans are bound by the memory they read. The inner loop runs over adjoining channels, which LLVM
vectorises.
"""

import numpy as np
from numba import njit

BLOCK = 256
FAST = {"contract", "reassoc", "nsz", "arcp"}


def blocks(d):
    """How many tiles a row of d channels is cut into."""
    return (d + BLOCK - 1) // BLOCK


@njit(nogil=True, cache=True, fastmath=FAST)
def forward(first, last_tile, a, x, state, resets, h, last):
    """Tiles [first, last_tile): h[t] = a[t] h[t-1] + x[t]."""
    _, steps, d = x.shape
    per_row = (d + BLOCK - 1) // BLOCK
    any_resets = resets.size > 0
    for tile in range(first, last_tile):
        b = tile // per_row
        start = (tile % per_row) * BLOCK
        size = min(BLOCK, d - start)
        s = np.empty(BLOCK, x.dtype)
        for i in range(size):
            s[i] = state[b, start + i]
        for t in range(steps):
            if any_resets and resets[b, t]:
                s[:] = 0
            at = a[b, t, start : start + size]
            xt = x[b, t, start : start + size]
            ht = h[b, t, start : start + size]
            for i in range(size):
                s[i] = at[i] * s[i] + xt[i]
                ht[i] = s[i]
        for i in range(size):
            last[b, start + i] = s[i]


@njit(nogil=True, cache=True, fastmath=FAST)
def forward_constant(first, last_tile, a, x, state, resets, h, last):
    """Tiles [first, last_tile): h[t] = a h[t-1] + x[t]."""
    _, steps, d = x.shape
    per_row = (d + BLOCK - 1) // BLOCK
    any_resets = resets.size > 0
    for tile in range(first, last_tile):
        b = tile // per_row
        start = (tile % per_row) * BLOCK
        size = min(BLOCK, d - start)
        s = np.empty(BLOCK, x.dtype)
        decay = a[start : start + size]
        for i in range(size):
            s[i] = state[b, start + i]
        for t in range(steps):
            if any_resets and resets[b, t]:
                s[:] = 0
            xt = x[b, t, start : start + size]
            ht = h[b, t, start : start + size]
            for i in range(size):
                s[i] = decay[i] * s[i] + xt[i]
                ht[i] = s[i]
        for i in range(size):
            last[b, start + i] = s[i]


@njit(nogil=True, cache=True, fastmath=FAST)
def backward(first, last_tile, a, state, resets, h, grad_h, grad_last, grad_a, grad_x, grad_state):
    """Tiles [first, last_tile): the scan in reverse, g[t] = grad_h[t] + a[t+1] g[t+1]."""
    _, steps, d = a.shape
    per_row = (d + BLOCK - 1) // BLOCK
    any_resets = resets.size > 0
    for tile in range(first, last_tile):
        b = tile // per_row
        start = (tile % per_row) * BLOCK
        size = min(BLOCK, d - start)
        g = np.empty(BLOCK, a.dtype)
        for i in range(size):
            g[i] = grad_last[b, start + i]
        for t in range(steps - 1, -1, -1):
            at = a[b, t, start : start + size]
            gh = grad_h[b, t, start : start + size]
            gx = grad_x[b, t, start : start + size]
            ga = grad_a[b, t, start : start + size]
            before = h[b, t - 1, start : start + size] if t > 0 else state[b, start : start + size]
            if any_resets and resets[b, t]:
                for i in range(size):
                    gx[i] = g[i] + gh[i]
                    ga[i] = 0
                    g[i] = 0
            else:
                for i in range(size):
                    total = g[i] + gh[i]
                    gx[i] = total
                    ga[i] = total * before[i]
                    g[i] = total * at[i]
        for i in range(size):
            grad_state[b, start + i] = g[i]


@njit(nogil=True, cache=True, fastmath=FAST)
def backward_constant(first, last_tile, a, state, resets, h, grad_h, grad_last, part_a, grad_x, grad_state):
    """The same with a (d): its gradient is summed over time in float64, apart for each batch row (b, d)."""
    _, steps, d = h.shape
    per_row = (d + BLOCK - 1) // BLOCK
    any_resets = resets.size > 0
    for tile in range(first, last_tile):
        b = tile // per_row
        start = (tile % per_row) * BLOCK
        size = min(BLOCK, d - start)
        decay = a[start : start + size]
        g = np.empty(BLOCK, a.dtype)
        ga = np.zeros(BLOCK)
        for i in range(size):
            g[i] = grad_last[b, start + i]
        for t in range(steps - 1, -1, -1):
            gh = grad_h[b, t, start : start + size]
            gx = grad_x[b, t, start : start + size]
            before = h[b, t - 1, start : start + size] if t > 0 else state[b, start : start + size]
            if any_resets and resets[b, t]:
                for i in range(size):
                    gx[i] = g[i] + gh[i]
                    g[i] = 0
            else:
                for i in range(size):
                    total = g[i] + gh[i]
                    gx[i] = total
                    ga[i] += total * before[i]
                    g[i] = total * decay[i]
        for i in range(size):
            grad_state[b, start + i] = g[i]
            part_a[b, start + i] = ga[i]
