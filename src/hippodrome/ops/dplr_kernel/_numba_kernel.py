# mypy: ignore-errors
"""Numba kernels of the kernel of S4 at rank 1: a tile is one channel, sixteen nodes a value.

For one pair of poles, x = |p|^2 - w^2 and u = (slope w)^2, T = 1 / (x^2 + u), X = x T and U = w^2 T, so that
each of the four Cauchy sums is

    re = sum alpha X + beta U,    im = w sum gamma X + delta T,

sixteen products for four sums. The sums stay in registers while the poles go by; then come Woodbury's
identity and the factor of the bilinear rule, and only the spectrum is written. The backward makes the sums
again for a block of nodes, turns the gradient of the spectrum into those of re and im / w, and then goes
through the block once for each pole, with the gradients of its numbers in registers.

A pole next to a node makes all four sums large, and their combination is what is left of a difference: it
loses as many digits as 1 + Q^* R P has. Where that is many, the nodes are done again in float64.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils

from hippodrome.ops._lanes_kernel import (
    LANES,
    Lanes,
    intrinsic,
    load,
    scratch,
    spread,
    store,
    total,
    zeros,
)

FIELDS = 19
"""Numbers of a pole: |p|^2 and its rest, slope^2, then alpha, beta, gamma and delta of the four sums each.

The rest is what |p|^2 lost to rounding; its gradient is none, since |p|^2 has the whole of it.
"""
BLOCK = 32
"""Values of sixteen nodes in a block of the backward."""


_FUSED = ("contract", "nsz")


@intrinsic
def madd(typingctx, a, b, c):
    """a b + c in this order, in one rounding where the machine can."""

    def generate(context, builder, sig, args):
        return builder.fadd(builder.fmul(args[0], args[1], flags=_FUSED), args[2], flags=_FUSED)

    return Lanes(a.dtype)(a, b, c), generate


@intrinsic
def apart(typingctx, a, b, a_rest, b_rest):
    """(a - b) + (a_rest - b_rest), in this order: it is what keeps the digits of a small difference."""

    def generate(context, builder, sig, args):
        return builder.fadd(builder.fsub(args[0], args[1]), builder.fsub(args[2], args[3]))

    return Lanes(a.dtype)(a, b, a_rest, b_rest), generate


@intrinsic
def store_pairs(typingctx, array, index, re, im):
    """Write sixteen complex numbers, parts in turn, to a flat array from ``index`` on, in its type."""

    def generate(context, builder, sig, args):
        turn = [i // 2 + LANES * (i % 2) for i in range(2 * LANES)]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 2 * LANES), turn)
        both = builder.shuffle_vector(args[2], args[3], mask)
        kept = ir.VectorType(context.get_value_type(array.dtype), 2 * LANES)
        both = both if both.type == kept else builder.fptrunc(both, kept)
        at = context.cast(builder, args[1], sig.args[1], types.intp)
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        place = builder.bitcast(cgutils.gep_inbounds(builder, data, at), both.type.as_pointer())
        builder.store(both, place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, index, re, im), generate


@intrinsic
def load_as(typingctx, array, index, like):
    """The sixteen elements of a flat array from ``index`` on, in the type of another, no narrower."""
    lanes = Lanes(like.dtype)

    def generate(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.intp)
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        kind = ir.VectorType(context.get_value_type(array.dtype), LANES)
        place = builder.bitcast(cgutils.gep_inbounds(builder, data, at), kind.as_pointer())
        value = builder.load(place, align=array.dtype.bitwidth // 8)
        vector = context.get_value_type(lanes)
        return value if value.type == vector else builder.fpext(value, vector)

    return lanes(array, index, like), generate


@njit(nogil=True, inline="always")
def _pole(table, at, squares, rests, j):
    """x, X, T and U of the pole at ``at`` and the sixteen nodes from ``j`` on."""
    square = load(squares, j)
    x = apart(spread(table, at), square, spread(table, at + 1), load(rests, j))
    T = 1.0 / madd(x, x, spread(table, at + 2) * square)
    return x, x * T, T, square * T


@njit(nogil=True, inline="always")
def _sums(table, start, n, squares, rests, j):
    """re and im / w of the four sums."""
    re0 = im0 = re1 = im1 = re2 = im2 = re3 = im3 = zeros(table)
    for i in range(n):
        at = start + FIELDS * i
        _, X, T, U = _pole(table, at, squares, rests, j)
        re0 = madd(spread(table, at + 3), X, madd(spread(table, at + 7), U, re0))
        re1 = madd(spread(table, at + 4), X, madd(spread(table, at + 8), U, re1))
        re2 = madd(spread(table, at + 5), X, madd(spread(table, at + 9), U, re2))
        re3 = madd(spread(table, at + 6), X, madd(spread(table, at + 10), U, re3))
        im0 = madd(spread(table, at + 11), X, madd(spread(table, at + 15), T, im0))
        im1 = madd(spread(table, at + 12), X, madd(spread(table, at + 16), T, im1))
        im2 = madd(spread(table, at + 13), X, madd(spread(table, at + 17), T, im2))
        im3 = madd(spread(table, at + 14), X, madd(spread(table, at + 18), T, im3))
    return re0, im0, re1, im1, re2, im2, re3, im3


@njit(nogil=True, cache=True, error_model="numpy")
def _spectrum(table, start, n, w, squares, rests, j, spectrum, at):
    """Write sixteen values of the spectrum; how large 1 + Q^* R P is there, squared."""
    re0, im0, re1, im1, re2, im2, re3, im3 = _sums(table, start, n, squares, rests, j)
    node = load(w, j)
    im0, im1, im2, im3 = im0 * node, im1 * node, im2 * node, im3 * node
    re3 = re3 + 1.0
    size = re3 * re3 + im3 * im3
    scale = 1.0 / size
    re, im = re1 * re2 - im1 * im2, re1 * im2 + im1 * re2
    re, im = re0 - (re * re3 + im * im3) * scale, im0 - (im * re3 - re * im3) * scale
    half = node * 0.5
    store_pairs(spectrum, at, re - half * im, im + half * re)
    return total(size)


@njit(nogil=True, cache=True, error_model="numpy")
def forward(first, last, offset, n, count, bound, numbers, exact, limits, spectrum):
    """Channels from ``offset`` on into rows of ``spectrum``, (channels, nodes + 16, 2) flat.

    ``numbers`` and ``exact`` are the table and the nodes, in the spectrum's type and in float64: nodes where
    1 + Q^* R P is larger than the root of ``bound`` are done again in the latter.
    """
    table, w, squares, rests = numbers
    table_64, w_64, squares_64, rests_64 = exact
    width = w.shape[0]
    for c in range(first, last):
        start, row = FIELDS * n * (offset + c), 2 * (width + LANES) * c
        for j in range(0, width, LANES):
            at = row + 2 * j
            if _spectrum(table, start, n, w, squares, rests, j, spectrum, at) > bound:
                _spectrum(table_64, start, n, w_64, squares_64, rests_64, j, spectrum, at)
        spectrum[row + 2 * count] = limits[offset + c]
        spectrum[row + 2 * count + 1] = 0.0


@njit(nogil=True, cache=True, error_model="numpy")
def _give(table, start, n, w, squares, rests, j, grad, at, given, k):
    """Gradients of the sums at sixteen nodes, re and im / w, into ``given``; the size of 1 + Q^* R P."""
    span = BLOCK * LANES
    _, _, re1, im1, re2, im2, re3, im3 = _sums(table, start, n, squares, rests, j)
    node = load(w, j)
    im1, im2, im3 = im1 * node, im2 * node, im3 * node
    re3 = re3 + 1.0
    size = re3 * re3 + im3 * im3
    scale = 1.0 / size
    # Over 1 + Q^* R P: a is C R P, b is Q^* R B.
    a_re, a_im = (re1 * re3 + im1 * im3) * scale, (im1 * re3 - re1 * im3) * scale
    b_re, b_im = (re2 * re3 + im2 * im3) * scale, (im2 * re3 - re2 * im3) * scale
    g_re, g_im = load_as(grad, at, table), load_as(grad, at + w.shape[0], table)
    half = node * 0.5
    g_re, g_im = g_re + half * g_im, g_im - half * g_re
    f_re, f_im = g_re * b_re + g_im * b_im, g_im * b_re - g_re * b_im
    store(given, k, g_re)
    store(given, span + k, f_re * -1.0)
    store(given, 2 * span + k, (g_re * a_re + g_im * a_im) * -1.0)
    store(given, 3 * span + k, f_re * a_re + f_im * a_im)
    store(given, 4 * span + k, g_im * node)
    store(given, 5 * span + k, f_im * node * -1.0)
    store(given, 6 * span + k, (g_re * a_im - g_im * a_re) * node)
    store(given, 7 * span + k, (f_im * a_re - f_re * a_im) * node)
    return total(size)


@njit(nogil=True, cache=True, error_model="numpy")
def backward(first, last, offset, n, bound, numbers, exact, grad, g_table):
    """``grad`` (channels, 2, nodes) flat, zero past the last node; ``g_table`` as the table, float64."""
    table, w, squares, rests = numbers
    table_64, w_64, squares_64, rests_64 = exact
    width = w.shape[0]
    span = BLOCK * LANES
    given, given_64, nothing = scratch(8 * span, w), scratch(8 * span, w_64), zeros(w)
    by = np.empty((n, FIELDS))
    for c in range(first, last):
        start, row = FIELDS * n * (offset + c), 2 * width * c
        by[:] = 0
        for begin in range(0, width, span):
            steps = min(span, width - begin)
            for k in range(0, steps, LANES):
                j = begin + k
                size = _give(table, start, n, w, squares, rests, j, grad, row + j, given, k)
                if size > bound:
                    _give(table_64, start, n, w_64, squares_64, rests_64, j, grad, row + j, given_64, 0)
                    for i in range(n):
                        _weigh(table_64, start + FIELDS * i, squares_64, rests_64, j, LANES, given_64, by[i])
                    for r in range(8):
                        store(given, r * span + k, nothing)
            for i in range(n):
                _weigh(table, start + FIELDS * i, squares, rests, begin, steps, given, by[i])
        for i in range(n):
            for k in range(FIELDS):
                g_table[start + FIELDS * i + k] = by[i, k]


@njit(nogil=True, cache=True, error_model="numpy")
def _weigh(table, at, squares, rests, begin, steps, given, by):
    """Add to ``by`` what a block of nodes gives the numbers of one pole."""
    span = BLOCK * LANES
    by_size = by_slope = zeros(table)
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zeros(table)
    c0 = c1 = c2 = c3 = e0 = e1 = e2 = e3 = zeros(table)
    for k in range(0, steps, LANES):
        x, X, T, U = _pole(table, at, squares, rests, begin + k)
        g = load(given, k)
        a0, b0 = madd(g, X, a0), madd(g, U, b0)
        by_X, by_U = spread(table, at + 3) * g, spread(table, at + 7) * g
        g = load(given, span + k)
        a1, b1 = madd(g, X, a1), madd(g, U, b1)
        by_X, by_U = madd(spread(table, at + 4), g, by_X), madd(spread(table, at + 8), g, by_U)
        g = load(given, 2 * span + k)
        a2, b2 = madd(g, X, a2), madd(g, U, b2)
        by_X, by_U = madd(spread(table, at + 5), g, by_X), madd(spread(table, at + 9), g, by_U)
        g = load(given, 3 * span + k)
        a3, b3 = madd(g, X, a3), madd(g, U, b3)
        by_X, by_U = madd(spread(table, at + 6), g, by_X), madd(spread(table, at + 10), g, by_U)
        g = load(given, 4 * span + k)
        c0, e0 = madd(g, X, c0), madd(g, T, e0)
        by_X, by_T = madd(spread(table, at + 11), g, by_X), spread(table, at + 15) * g
        g = load(given, 5 * span + k)
        c1, e1 = madd(g, X, c1), madd(g, T, e1)
        by_X, by_T = madd(spread(table, at + 12), g, by_X), madd(spread(table, at + 16), g, by_T)
        g = load(given, 6 * span + k)
        c2, e2 = madd(g, X, c2), madd(g, T, e2)
        by_X, by_T = madd(spread(table, at + 13), g, by_X), madd(spread(table, at + 17), g, by_T)
        g = load(given, 7 * span + k)
        c3, e3 = madd(g, X, c3), madd(g, T, e3)
        by_X, by_T = madd(spread(table, at + 14), g, by_X), madd(spread(table, at + 18), g, by_T)
        # U = w^2 T, X = x T and T = 1 / (x^2 + slope^2 w^2).
        square = load(squares, begin + k)
        by_T = madd(square, by_U, madd(x, by_X, by_T)) * T
        by_size = by_size + (by_X * T - (X + X) * by_T)
        by_slope = by_slope - square * (by_T * T)
    by[0] += total(by_size)
    by[2] += total(by_slope)
    by[3] += total(a0)
    by[4] += total(a1)
    by[5] += total(a2)
    by[6] += total(a3)
    by[7] += total(b0)
    by[8] += total(b1)
    by[9] += total(b2)
    by[10] += total(b3)
    by[11] += total(c0)
    by[12] += total(c1)
    by[13] += total(c2)
    by[14] += total(c3)
    by[15] += total(e0)
    by[16] += total(e1)
    by[17] += total(e2)
    by[18] += total(e3)
