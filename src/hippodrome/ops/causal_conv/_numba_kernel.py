"""Numba kernels of the causal convolution: taps, bias and silu in one pass, forward and backward.

A tile is a stretch of ``SPAN`` steps of one batch row. It goes through its channels in blocks, so that the
rows under the taps and the weights stay in the first-level cache, and along time inside a block. Where the
channels are no multiple of the lanes, the last lanes overlap those before them: both write the same numbers.

x and the gradient of y come as flat arrays with strides (batch, time); ``weight`` lies transposed, (w, d),
oldest tap first; ``past`` is (b, w-1, d). ``sizes`` is (t, d, w), d at least the lanes.
"""

import numpy as np
from numba import njit

from hippodrome.ops._lanes_kernel import LANES, load, sigmoid, store, zeros

SPAN = 64
BLOCK = 256


@njit(nogil=True, cache=True)
def span(w):
    """Steps of a tile, never fewer than the taps."""
    return max(SPAN, w)


@njit(nogil=True, cache=True)
def visible(resets, b, t, first, last, w, seen):
    """seen[i]: how many steps back token first + i looks, w - 1 at most and not beyond a reset."""
    back = w - 1
    for i in range(max(0, first - w + 1), last):
        if resets.size > 0:
            back = 0 if resets[b * t + i] else min(back + 1, w - 1)
        if i >= first:
            seen[i - first] = back


@njit(nogil=True, cache=True)
def beginning(x, at, stride, past, b, sizes, rows):
    """The past and the first steps in one piece, 2 (w - 1) rows: what the first tokens look back on."""
    t, d, w = sizes
    rows[: (w - 1) * d] = past[b * (w - 1) * d : (b + 1) * (w - 1) * d]
    for j in range(min(w - 1, t)):
        rows[(w - 1 + j) * d : (w + j) * d] = x[at + j * stride : at + j * stride + d]


@njit(nogil=True, cache=True, inline="always")
def taps(source, at, stride, weight, bias, c, back, d, w):
    """Sixteen channels from ``c`` on of one token before the activation; its row begins at ``at``."""
    total = load(bias, c)
    for lag in range(back + 1):
        total = total + load(source, at - lag * stride + c) * load(weight, (w - 1 - lag) * d + c)
    return total


@njit(nogil=True, cache=True)
def forward_row(source, at, stride, weight, bias, first, last, back, silu, d, w, y, out):
    """One token, channels first to last."""
    for i in range(first, last, LANES):
        c = min(i, d - LANES)
        z = taps(source, at, stride, weight, bias, c, back, d, w)
        store(y, out + c, z * sigmoid(z) if silu else z)


@njit(nogil=True, cache=True)
def forward(first, last_tile, x, strides, weight, bias, past, resets, silu, sizes, y, last):
    """Tiles [first, last_tile); the last tile of a row leaves the row's final state."""
    t, d, w = sizes
    length = span(w)
    tiles = (t + length - 1) // length
    seen = np.empty(length, np.int64)
    rows = np.empty(2 * (w - 1) * d, x.dtype)
    for tile in range(first, last_tile):
        b, begin = tile // tiles, tile % tiles * length
        end = min(begin + length, t)
        at, stride = b * strides[0], strides[1]
        visible(resets, b, t, begin, end, w, seen)
        if begin == 0:
            beginning(x, at, stride, past, b, sizes, rows)
        for c in range(0, d, BLOCK):
            until = min(c + BLOCK, d)
            for i in range(begin, end):
                back, out = seen[i - begin], (b * t + i) * d
                if i < w - 1:
                    forward_row(rows, (w - 1 + i) * d, d, weight, bias, c, until, back, silu, d, w, y, out)
                else:
                    forward_row(x, at + i * stride, stride, weight, bias, c, until, back, silu, d, w, y, out)
        if end == t:
            for j in range(w - 1):
                i = t - w + 1 + j
                slot = last[(b * (w - 1) + j) * d : (b * (w - 1) + j + 1) * d]
                if t - 1 - i > seen[t - 1 - begin]:
                    slot[:] = 0
                elif i >= 0:
                    slot[:] = x[at + i * stride : at + i * stride + d]
                else:
                    slot[:] = past[(b * (w - 1) + w - 1 + i) * d : (b * (w - 1) + w + i) * d]


@njit(nogil=True, cache=True)
def gradient_row(source, at, stride, weight, bias, grad_y, at_y, first, last, back, silu, d, w, sums, g, out):
    """One token's gradient before the activation, into ``g`` from ``out`` on.

    ``sums``, unless empty, collects for these channels the gradients of the taps (w, BLOCK) and the bias.
    """
    for i in range(first, last, LANES):
        c = min(i, d - LANES)
        grad = load(grad_y, at_y + c)
        if silu:
            z = taps(source, at, stride, weight, bias, c, back, d, w)
            s = sigmoid(z)
            grad = grad * (s + z * s * (1.0 - s))
        store(g, out + i - first, grad)
        if sums.size > 0:
            for lag in range(back + 1):
                place = (w - 1 - lag) * BLOCK + i - first
                store(sums, place, load(sums, place) + grad * load(source, at - lag * stride + c))
            place = w * BLOCK + i - first
            store(sums, place, load(sums, place) + grad)


@njit(nogil=True, cache=True)
def input_row(g, weight, first, last, i, begin, end, seen, grad_last, at_last, d, w, grad_x, out):
    """Gradient of the input of step i, from those tokens in [begin, end) that see it and the final state."""
    for k in range(first, last, LANES):
        c = min(k, d - LANES)
        total = load(grad_last, at_last + c) if at_last >= 0 else zeros(g)
        for lag in range(max(0, begin - i), min(w, end - i)):
            if lag <= seen[i + lag - begin]:
                place = (i + lag - begin) * BLOCK + k - first
                total = total + load(g, place) * load(weight, (w - 1 - lag) * d + c)
        store(grad_x, out + c, total)


@njit(nogil=True, cache=True)
def backward(
    first, last_tile, x, strides, weight, bias, past, resets, silu, sizes, grad_y, strides_y, grad_last,
    grad_x, grad_past, partial,
):  # fmt: skip
    """Tiles [first, last_tile); ``partial`` (tiles, w+1, d) gets each tile's gradients of weight and bias."""
    t, d, w = sizes
    length = span(w)
    tiles = (t + length - 1) // length
    seen = np.empty(length + w - 1, np.int64)
    rows = np.empty(2 * (w - 1) * d, x.dtype)
    g = np.empty((length + w - 1) * BLOCK, x.dtype)
    sums, nothing = np.empty((w + 1) * BLOCK, x.dtype), np.empty(0, x.dtype)
    for tile in range(first, last_tile):
        b, begin = tile // tiles, tile % tiles * length
        end = min(begin + length, t)
        # Tokens of the next tile see steps of this one.
        until = min(end + w - 1, t)
        at, stride = b * strides[0], strides[1]
        visible(resets, b, t, begin, until, w, seen)
        if begin == 0:
            beginning(x, at, stride, past, b, sizes, rows)
        for c in range(0, d, BLOCK):
            to = min(c + BLOCK, d)
            sums[:] = 0
            for i in range(begin, until):
                back, at_y, row = seen[i - begin], b * strides_y[0] + i * strides_y[1], (i - begin) * BLOCK
                into = sums if i < end else nothing
                source, place, step = (
                    (rows, (w - 1 + i) * d, d) if i < w - 1 else (x, at + i * stride, stride)
                )
                gradient_row(
                    source, place, step, weight, bias, grad_y, at_y, c, to, back, silu, d, w, into, g, row
                )
            for k in range(w + 1):
                for i in range(c, to, LANES):
                    value = load(sums, k * BLOCK + i - c)
                    store(partial, (tile * (w + 1) + k) * d + min(i, d - LANES), value)
            for i in range(begin - w + 1 if begin == 0 else begin, end):
                slot = i - (t - w + 1)
                held = slot >= 0 and slot < w - 1 and until == t and t - 1 - i <= seen[t - 1 - begin]
                at_last = (b * (w - 1) + slot) * d if held else -1
                if i < 0:
                    out = (b * (w - 1) + w - 1 + i) * d
                    input_row(
                        g, weight, c, to, i, begin, until, seen, grad_last, at_last, d, w, grad_past, out
                    )
                else:
                    out = (b * t + i) * d
                    input_row(g, weight, c, to, i, begin, until, seen, grad_last, at_last, d, w, grad_x, out)
