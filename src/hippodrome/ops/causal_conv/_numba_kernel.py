"""Numba kernels of the causal convolution: taps, bias and silu in one pass over time, forward and backward.

A tile is one batch row and a few blocks of sixteen channels. Time advances in chunks, block after block
inside a chunk, so that a row's adjoining cache lines are met soon after each other. The inputs under the taps
stay in registers from step to step, as do the gradients that later steps still add to: a step reads and
writes each of its numbers once. A reset empties the registers. Where the channels are no multiple of the
lanes, the last lanes overlap those before them: both write the same numbers.

x and the gradient of y come as flat arrays with strides (batch, time); ``weight`` lies transposed, (w, d),
oldest tap first; ``past`` is (b, w-1, d). ``taps`` is a tuple of w zeros: its length is known when a kernel
is compiled, one kernel for each number of taps. ``sizes`` is (t, d, blocks in a tile), d at least the lanes.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

from hippodrome.ops._lanes_kernel import (
    LANES,
    load,
    prefetch,
    scratch,
    sigmoid,
    store,
    wide,
    zeros,
)

# Kernels call an intrinsic without the typing context it is written with: no type checker can know.
intrinsic: Any = _intrinsic
SPAN = 64


@intrinsic
def repeated(typingctx, value, taps):
    """The same lanes for each tap."""
    group = types.UniTuple(value, len(taps))
    return group(value, taps), lambda context, builder, sig, args: cgutils.pack_array(
        builder, [args[0]] * group.count
    )


@intrinsic
def pushed(typingctx, group, value):
    """The lanes of each tap moved one step into the past, the newest set."""

    def generate(context, builder, sig, args):
        items = cgutils.unpack_tuple(builder, args[0], group.count)
        return cgutils.pack_array(builder, [*items[1:], args[1]])

    return group(group, value), generate


@intrinsic
def added(typingctx, group, other, value):
    """group[k] + other[k] * value for each tap."""

    def generate(context, builder, sig, args):
        flags = ("contract", "reassoc", "nsz", "arcp")
        pairs = zip(*(cgutils.unpack_tuple(builder, x, group.count) for x in args[:2]), strict=True)
        products = [(a, builder.fmul(b, args[2], flags=flags)) for a, b in pairs]
        return cgutils.pack_array(builder, [builder.fadd(a, p, flags=flags) for a, p in products])

    return group(group, other, value), generate


@intrinsic
def dot(typingctx, value, group, other):
    """value + sum_k group[k] other[k], oldest tap first."""

    def generate(context, builder, sig, args):
        flags = ("contract", "reassoc", "nsz", "arcp")
        result = args[0]
        for a, b in zip(*(cgutils.unpack_tuple(builder, x, group.count) for x in args[1:]), strict=True):
            result = builder.fadd(result, builder.fmul(a, b, flags=flags), flags=flags)
        return result

    return value(value, group, other), generate


@njit(nogil=True, cache=True, inline="always")
def rows(source, at, stride, taps):
    """The lanes at ``at`` in w rows of an array, one for each tap."""
    group = repeated(load(source, at), taps)
    for k in range(1, len(taps)):
        group = pushed(group, load(source, at + k * stride))
    return group


@njit(nogil=True, cache=True, inline="always")
def keep(group, target, at):
    """Write the lanes of each tap behind each other."""
    k = at
    for lanes in group:
        store(target, k, lanes)
        k += LANES


@njit(nogil=True, cache=True)
def forward(first, last_tile, taps, sizes, strides, silu, x, weight, bias, past, resets, y, last):
    """Tiles [first, last_tile); ``last`` (b, w-1, d) gets the final state."""
    t, d, group = sizes
    w, row = len(taps), len(taps) * LANES
    blocks = (d + LANES - 1) // LANES
    groups = (blocks + group - 1) // group
    held = scratch(group * row, weight)
    for tile in range(first, last_tile):
        b, low = tile // groups, tile % groups * group
        high = min(low + group, blocks)
        for block in range(low, high):
            c = min(block * LANES, d - LANES)
            for k in range(1, w):
                store(held, (block - low) * row + k * LANES, load(past, (b * (w - 1) + k - 1) * d + c))
        for t0 in range(0, t, SPAN):
            end = min(t0 + SPAN, t)
            for block in range(low, high):
                c = min(block * LANES, d - LANES)
                weights, shift = rows(weight, c, d, taps), load(bias, c)
                window = rows(held, (block - low) * row, LANES, taps)
                at, to = b * strides[0] + t0 * strides[1] + c, (b * t + t0) * d + c
                for i in range(t0, end):
                    prefetch(x, at + SPAN * strides[1], 0)
                    prefetch(y, to + SPAN * d, 1)
                    if resets.size and resets[b * t + i]:
                        window = repeated(zeros(weight), taps)
                    window = pushed(window, load(x, at))
                    z = dot(shift, window, weights)
                    store(y, to, z * sigmoid(z) if silu else z)
                    at, to = at + strides[1], to + d
                keep(window, held, (block - low) * row)
        for block in range(low, high):
            c = min(block * LANES, d - LANES)
            for k in range(1, w):
                store(last, (b * (w - 1) + k - 1) * d + c, load(held, (block - low) * row + k * LANES))


@njit(nogil=True, cache=True, inline="always")
def settle(pending, earliest, i, b, c, t, d, w, grad_x, grad_past):
    """Write the gradients of the w - 1 inputs before step i that no later step adds to, those of a run."""
    for k in range(1, w):
        step = i - w + k
        if step >= earliest:
            if step >= 0:
                store(grad_x, (b * t + step) * d + c, load(pending, k * LANES))
            else:
                store(grad_past, (b * (w - 1) + w - 1 + step) * d + c, load(pending, k * LANES))


@njit(nogil=True, cache=True)
def backward(
    first, last_tile, taps, sizes, strides, silu, x, weight, bias, past, resets, grad_y, grad_last,
    grad_x, grad_past, sums,
):  # fmt: skip
    """Tiles [first, last_tile); ``sums`` (b, w+1, d) gets each row's gradients of the taps and the bias."""
    t, d, group = sizes
    (x_b, x_t), (y_b, y_t) = strides
    w, row = len(taps), len(taps) * LANES
    blocks = (d + LANES - 1) // LANES
    groups = (blocks + group - 1) // group
    held, pending, partial = (
        scratch(group * row, weight),
        scratch(group * row, weight),
        scratch(row, weight),
    )
    earliest = np.zeros(group, np.int64)
    totals = scratch(group * (row + LANES), sums)
    for tile in range(first, last_tile):
        b, low = tile // groups, tile % groups * group
        high = min(low + group, blocks)
        pending[:], totals[:], earliest[:] = 0, 0, 1 - w
        for block in range(low, high):
            c = min(block * LANES, d - LANES)
            for k in range(1, w):
                store(held, (block - low) * row + k * LANES, load(past, (b * (w - 1) + k - 1) * d + c))
        for t0 in range(0, t, SPAN):
            end = min(t0 + SPAN, t)
            for block in range(low, high):
                c = min(block * LANES, d - LANES)
                weights, shift = rows(weight, c, d, taps), load(bias, c)
                window = rows(held, (block - low) * row, LANES, taps)
                later = rows(pending, (block - low) * row, LANES, taps)
                taken, shifted = repeated(zeros(weight), taps), zeros(weight)
                since = earliest[block - low]
                at, at_y = b * x_b + t0 * x_t + c, b * y_b + t0 * y_t + c
                for i in range(t0, end):
                    prefetch(x, at + SPAN * x_t, 0)
                    prefetch(grad_y, at_y + SPAN * y_t, 0)
                    prefetch(grad_x, (b * t + i + SPAN) * d + c, 1)
                    if resets.size and resets[b * t + i]:
                        keep(later, partial, 0)
                        settle(partial, since, i, b, c, t, d, w, grad_x, grad_past)
                        window, later = repeated(zeros(weight), taps), repeated(zeros(weight), taps)
                        since = i
                    window = pushed(window, load(x, at))
                    grad = load(grad_y, at_y)
                    if silu:
                        z = dot(shift, window, weights)
                        s = sigmoid(z)
                        grad = grad * (s + z * s * (1.0 - s))
                    taken, shifted = added(taken, window, grad), shifted + grad
                    later = added(pushed(later, zeros(weight)), weights, grad)
                    step = i - w + 1
                    if step >= since:
                        if step >= 0:
                            store(grad_x, (b * t + step) * d + c, later[0])
                        else:
                            store(grad_past, (b * (w - 1) + i) * d + c, later[0])
                    at, at_y = at + x_t, at_y + y_t
                keep(window, held, (block - low) * row)
                keep(later, pending, (block - low) * row)
                keep(taken, partial, 0)
                earliest[block - low] = since
                # Sums over time run in float64 from chunk to chunk.
                j = (block - low) * (row + LANES)
                for k in range(w):
                    place = j + k * LANES
                    store(totals, place, load(totals, place) + wide(load(partial, k * LANES)))
                store(totals, j + row, load(totals, j + row) + wide(shifted))
        for block in range(low, high):
            c, at = min(block * LANES, d - LANES), (block - low) * row
            for k in range(1, w):
                value = load(pending, at + k * LANES) + load(grad_last, (b * (w - 1) + k - 1) * d + c)
                store(pending, at + k * LANES, value)
            settle(pending[at : at + row], earliest[block - low], t, b, c, t, d, w, grad_x, grad_past)
            for k in range(w + 1):
                value = load(totals, (block - low) * (row + LANES) + k * LANES)
                store(sums, (b * (w + 1) + k) * d + c, value)
