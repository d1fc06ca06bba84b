# mypy: ignore-errors
"""Numba kernels of the Cauchy sums: a tile is one channel, in blocks of nodes that stay in the first cache.

For a block of nodes and one pole, rho = 1 / (re + i im) with re = (|p| - w) (|p| + w) and im = w slope is
made once and added to every row's sums with the row's factor. The backward makes rho again: with G the
gradients of the sums times the rows' factors, those of re and im follow from d rho = -rho^2 d(re + i im).
Loops run over whole blocks from zero, so that LLVM sees indices that are never negative; past the last node
the last one stands again, with no gradient.
"""

import numpy as np
from numba import njit

FAST = {"contract", "reassoc", "nsz", "arcp"}
EXACT = {"contract", "nsz", "arcp"}
"""Where a difference is taken of two parts each, their order is what keeps the digits."""
BLOCK = 128
"""Nodes of a block: its sums for eight rows are 8 KiB in float32."""
PART = 2 * BLOCK
"""A block's real parts, then its imaginary ones; of nodes, w and then its rest."""


@njit(nogil=True, cache=True)
def _nodes(start, w, w_rest, nodes):
    last = w.shape[0] - 1
    for j in range(BLOCK):
        nodes[j] = w[min(start + j, last)]
        nodes[BLOCK + j] = w_rest[min(start + j, last)]


@njit(nogil=True, cache=True, fastmath=EXACT, error_model="numpy")
def _reciprocals(nodes, slope, size, size_rest, unit, rho):
    """rho of one pole."""
    for j in range(BLOCK):
        node = nodes[j]
        re = ((size - node) + (size_rest - nodes[BLOCK + j])) * (size + node)
        im = slope * node
        scale = unit / (re * re + im * im)
        rho[j] = re * scale
        rho[BLOCK + j] = -im * scale


@njit(nogil=True, cache=True, fastmath=EXACT)
def _apart(nodes, size, size_rest, apart):
    """|p| - w of one pole."""
    for j in range(BLOCK):
        apart[j] = (size - nodes[j]) + (size_rest - nodes[BLOCK + j])


@njit(nogil=True, cache=True, fastmath=FAST)
def _add(f0, f1, f2, f3, rho0, rho1, rho2, rho3, total):
    """Add four poles, with their factors, to a row's sums."""
    for j in range(PART):
        total[j] += f0 * rho0[j] + f1 * rho1[j] + f2 * rho2[j] + f3 * rho3[j]


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def forward(first, last, rows, slope, size, size_rest, w, w_rest, out):
    """out (d, rows, 2, l)."""
    count, n = rows.shape[1], rows.shape[2]
    unit = w.dtype.type(1)
    nodes, rho = np.empty(PART, w.dtype), np.zeros((4, PART), w.dtype)
    rho0, rho1, rho2, rho3 = rho[0], rho[1], rho[2], rho[3]
    total, factor = np.empty((count, PART), w.dtype), np.zeros((count, 4), w.dtype)
    for c in range(first, last):
        for start in range(0, w.shape[0], BLOCK):
            steps = min(BLOCK, w.shape[0] - start)
            _nodes(start, w, w_rest, nodes)
            total[:] = 0
            for i in range(0, n, 4):
                factor[:] = 0  # of poles past the last one, whose rho is an earlier one's
                for k in range(min(4, n - i)):
                    _reciprocals(nodes, slope[c, i + k], size[c, i + k], size_rest[c, i + k], unit, rho[k])
                    for r in range(count):
                        factor[r, k] = rows[c, r, i + k]
                for r in range(count):
                    f = factor[r]
                    _add(f[0], f[1], f[2], f[3], rho0, rho1, rho2, rho3, total[r])
            for r in range(count):
                for j in range(steps):
                    out[c, r, 0, start + j] = total[r, j]
                    out[c, r, 1, start + j] = total[r, BLOCK + j]


@njit(nogil=True, cache=True, fastmath=FAST)
def _weigh(first, second, given, given_second, rho, g, zero):
    """Two rows: their gradients times their factors into ``g``, and the gradients of the factors."""
    by_first, by_second = zero, zero
    for j in range(PART):
        a, b = given[j], given_second[j]
        g[j] += first * a + second * b
        by_first += a * rho[j]
        by_second += b * rho[j]
    return by_first, by_second


@njit(nogil=True, cache=True, fastmath=FAST)
def _slopes(nodes, slope, size, apart, rho, g, zero, of_nodes):
    """Gradients of one pole's slope, |p| and its rest, summed over the nodes; those of the nodes, added."""
    by_slope, by_size, by_rest = zero, zero, zero
    for j in range(BLOCK):
        node = nodes[j]
        re, im = rho[j], rho[BLOCK + j]
        square_re = re * re - im * im
        square_im = re * im + re * im
        by_re = -(g[j] * square_re + g[BLOCK + j] * square_im)
        by_im = g[j] * square_im - g[BLOCK + j] * square_re
        by_apart = by_re * (size + node)
        by_slope += by_im * node
        by_size += by_re * apart[j] + by_apart
        by_rest += by_apart
        of_nodes[j] += by_re * apart[j] - by_apart + by_im * slope
        of_nodes[BLOCK + j] -= by_apart
    return by_slope, by_size, by_rest


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def backward(first, last, grad, rows, slope, size, size_rest, w, w_rest, g_rows, g_terms, g_nodes):
    """g_rows as rows, an even number; g_terms (d, n, 3) of slope, |p| and its rest; g_nodes (d, 2, l)."""
    count, n, length = rows.shape[1], rows.shape[2], w.shape[0]
    unit = w.dtype.type(1)
    zero = unit - unit
    nodes, apart, of_nodes = np.empty(PART, w.dtype), np.empty(BLOCK, w.dtype), np.empty(PART, w.dtype)
    rho, g, given = np.empty(PART, w.dtype), np.empty(PART, w.dtype), np.empty((count, PART), w.dtype)
    by_rows, by_terms = np.empty((n, count)), np.empty((n, 3))
    for c in range(first, last):
        by_rows[:], by_terms[:] = 0, 0
        for start in range(0, length, BLOCK):
            steps = min(BLOCK, length - start)
            _nodes(start, w, w_rest, nodes)
            given[:], of_nodes[:] = 0, 0
            for r in range(count):
                for j in range(steps):
                    given[r, j] = grad[c, r, 0, start + j]
                    given[r, BLOCK + j] = grad[c, r, 1, start + j]
            for i in range(n):
                _reciprocals(nodes, slope[c, i], size[c, i], size_rest[c, i], unit, rho)
                _apart(nodes, size[c, i], size_rest[c, i], apart)
                g[:] = 0
                for r in range(0, count, 2):
                    a, b = _weigh(rows[c, r, i], rows[c, r + 1, i], given[r], given[r + 1], rho, g, zero)
                    by_rows[i, r] += a
                    by_rows[i, r + 1] += b
                a, b, e = _slopes(nodes, slope[c, i], size[c, i], apart, rho, g, zero, of_nodes)
                by_terms[i, 0] += a
                by_terms[i, 1] += b
                by_terms[i, 2] += e
            for j in range(steps):
                g_nodes[c, 0, start + j] = of_nodes[j]
                g_nodes[c, 1, start + j] = of_nodes[BLOCK + j]
        for i in range(n):
            for r in range(count):
                g_rows[c, r, i] = by_rows[i, r]
            for k in range(3):
                g_terms[c, i, k] = by_terms[i, k]
