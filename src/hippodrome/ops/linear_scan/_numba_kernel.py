"""Numba kernels of the linear scan, real and complex: a tile is a batch row and a block, time runs inside.

These scans are bound by memory. A tile is as wide as leaves every thread one, since a step then is one run of
memory, and asks for the lines of the next step, which are too far off for the machine to guess. Channels do
not meet, so that results do not depend on the width.

a, x and the gradient of h come as flat arrays, float32, float64 or bfloat16 as uint16, with the strides of
their rows and steps; those of a are (0, 0) where it is constant in time. What complex numbers are is told by
the length of ``pairs``, known when the kernel is compiled: with () channels are real numbers, with (0,) they
are pairs side by side, and ``d`` counts the scalars of both.

The forward pass leaves the state in front of each chunk of steps. From it the backward pass runs through the
chunk again, so that it knows the states as they were computed, whatever h was rounded to; the scan in reverse
then finds them in the near cache. Either asks for the lines that the other will touch.

``sizes`` is (t, d, width of a tile, steps of a chunk).
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.extending import intrinsic as _intrinsic

from hippodrome.ops._lanes_kernel import (
    FLAGS,
    LANES,
    load,
    load_some,
    prefetch,
    scratch,
    store,
    store_some,
    wide,
    zeros,
)

# Kernels call an intrinsic without the typing context it is written with: no type checker can know.
intrinsic: Any = _intrinsic


def _chosen(builder, x, lanes):
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes)
    return builder.shuffle_vector(x, ir.Constant(x.type, ir.Undefined), mask)


def _product(pairs, sign):
    def generate(context, builder, sig, args):
        a, x = args[:2]
        if not pairs.count:
            return builder.fmul(a, x, flags=FLAGS)
        real = builder.fmul(_chosen(builder, a, [i // 2 * 2 for i in range(LANES)]), x, flags=FLAGS)
        signs = ir.Constant(x.type, [-sign, sign] * (LANES // 2))
        turned = builder.fmul(_chosen(builder, x, [i ^ 1 for i in range(LANES)]), signs, flags=FLAGS)
        imaginary = _chosen(builder, a, [i // 2 * 2 + 1 for i in range(LANES)])
        return builder.fadd(real, builder.fmul(imaginary, turned, flags=FLAGS), flags=FLAGS)

    return generate


@intrinsic
def times(typingctx, a, x, pairs):
    """a x, of numbers or of pairs."""
    return x(a, x, pairs), _product(pairs, 1.0)


@intrinsic
def conjugate_times(typingctx, a, x, pairs):
    """conj(a) x, of numbers or of pairs."""
    return x(a, x, pairs), _product(pairs, -1.0)


@njit(nogil=True, cache=True, inline="always")
def step(pairs, a, at_a, x, at_x, i, size, s):
    """The state of some lanes one step on, also kept in ``s``."""
    value = times(load_some(a, at_a + i, size), load(s, i), pairs) + load_some(x, at_x + i, size)
    store(s, i, value)
    return value


@njit(nogil=True, cache=True)
def advance(pairs, a, at_a, stride_a, x, at_x, stride_x, size, s, h, at_h, stride_h):
    """One step of a tile forward, written to ``h``."""
    whole = size - size % LANES
    for i in range(0, whole, LANES):
        prefetch(a, at_a + stride_a + i, 0)
        prefetch(x, at_x + stride_x + i, 0)
        prefetch(h, at_h + stride_h + i, 1)
        store(h, at_h + i, step(pairs, a, at_a, x, at_x, i, LANES, s))
    if whole < size:
        store_some(h, at_h + whole, size - whole, step(pairs, a, at_a, x, at_x, whole, size - whole, s))


@njit(nogil=True, cache=True)
def forward(first, last_tile, pairs, sizes, a_strides, x_strides, a, x, state, resets, h, last, marks):
    """Tiles [first, last_tile): h[t] = a[t] h[t-1] + x[t]; ``marks`` (b, chunks, d) where it is not empty."""
    steps, d, width, length = sizes
    per_row, chunks = (d + width - 1) // width, (steps + length - 1) // length
    s = scratch(width, state)
    for tile in range(first, last_tile):
        b, start = tile // per_row, tile % per_row * width
        size = min(width, d - start)
        for i in range(0, size, LANES):
            store(s, i, load_some(state, b * d + start + i, size - i))
        for t in range(steps):
            if marks.size > 0 and t % length == 0:
                at = (b * chunks + t // length) * d + start
                for i in range(0, size, LANES):
                    store_some(marks, at + i, size - i, load(s, i))
            if resets.size > 0 and resets[b * steps + t]:
                s[:] = 0
            at_a = b * a_strides[0] + t * a_strides[1] + start
            at_x = b * x_strides[0] + t * x_strides[1] + start
            out = (b * steps + t) * d + start
            advance(pairs, a, at_a, a_strides[1], x, at_x, x_strides[1], size, s, h, out, d)
        for i in range(0, size, LANES):
            store_some(last, b * d + start + i, size - i, load(s, i))


@njit(nogil=True, cache=True)
def again(pairs, a, at_a, x, at_x, size, s, before, at, grad_h, at_h, grad_a, grad_x, out):
    """One step of a tile forward; the state in front of it goes to ``before``."""
    whole = size - size % LANES
    for i in range(0, whole, LANES):
        prefetch(grad_h, at_h + i, 0)
        prefetch(grad_x, out + i, 1)
        if grad_a.size > 0:
            prefetch(grad_a, out + i, 1)
        store(before, at + i, load(s, i))
        step(pairs, a, at_a, x, at_x, i, LANES, s)
    if whole < size:
        store(before, at + whole, load(s, whole))
        step(pairs, a, at_a, x, at_x, whole, size - whole, s)


@njit(nogil=True, cache=True, inline="always")
def collect(grad_h, at_h, grad_x, at, i, size, g):
    """The gradient that reaches the state of one step, some lanes; it is that of x."""
    value = load(g, i) + load_some(grad_h, at_h + i, size)
    store_some(grad_x, at + i, size, value)
    return value


@njit(nogil=True, cache=True)
def retreat(pairs, a, at_a, next_a, x, next_x, grad_h, at_h, h, at, grad_a, grad_x, out, size, g):
    """One step of a tile back; the gradient of a is written."""
    whole = size - size % LANES
    for i in range(0, whole, LANES):
        prefetch(a, next_a + i, 0)
        prefetch(x, next_x + i, 0)
        value = collect(grad_h, at_h, grad_x, out, i, LANES, g)
        store(grad_a, out + i, conjugate_times(load(h, at + i), value, pairs))
        store(g, i, conjugate_times(load(a, at_a + i), value, pairs))
    if whole < size:
        rest = size - whole
        value = collect(grad_h, at_h, grad_x, out, whole, rest, g)
        store_some(grad_a, out + whole, rest, conjugate_times(load(h, at + whole), value, pairs))
        store(g, whole, conjugate_times(load_some(a, at_a + whole, rest), value, pairs))


@njit(nogil=True, cache=True)
def retreat_constant(pairs, a, at_a, x, next_x, grad_h, at_h, h, at, sums, grad_x, out, size, g):
    """One step of a tile back; the gradient of a is added to ``sums``."""
    whole = size - size % LANES
    for i in range(0, whole, LANES):
        prefetch(x, next_x + i, 0)
        value = collect(grad_h, at_h, grad_x, out, i, LANES, g)
        store(sums, i, load(sums, i) + conjugate_times(load(h, at + i), value, pairs))
        store(g, i, conjugate_times(load(a, at_a + i), value, pairs))
    if whole < size:
        rest = size - whole
        value = collect(grad_h, at_h, grad_x, out, whole, rest, g)
        store(sums, whole, load(sums, whole) + conjugate_times(load(h, at + whole), value, pairs))
        store(g, whole, conjugate_times(load_some(a, at_a + whole, rest), value, pairs))


@njit(nogil=True, cache=True)
def start_anew(grad_h, at_h, grad_a, grad_x, out, constant, size, g):
    """One step back at a reset: nothing reaches a or what lies before."""
    for i in range(0, size, LANES):
        collect(grad_h, at_h, grad_x, out, i, size - i, g)
        if not constant:
            store_some(grad_a, out + i, size - i, zeros(g))
    g[:] = 0


@njit(nogil=True, cache=True)
def backward(
    first, last_tile, pairs, constant, sizes, a_strides, x_strides, h_strides,
    a, x, resets, marks, grad_h, grad_last, grad_a, part_a, grad_x, grad_state,
):  # fmt: skip
    """Tiles [first, last_tile): g[t] = grad_h[t] + conj(a[t+1]) g[t+1].

    The gradient of a goes to ``grad_a`` (b, t, d); where a is ``constant`` it is summed, within a chunk as it
    comes and over chunks in float64, and goes, apart for each batch row, to ``part_a`` (b, d).
    """
    steps, d, width, length = sizes
    per_row, chunks = (d + width - 1) // width, (steps + length - 1) // length
    s, g, sums, before = scratch(width, x), scratch(width, x), scratch(width, x), scratch(length * width, x)
    whole_sums = np.zeros(width)
    for tile in range(first, last_tile):
        b, start = tile // per_row, tile % per_row * width
        size = min(width, d - start)
        whole_sums[:] = 0
        for i in range(0, size, LANES):
            store(g, i, load_some(grad_last, b * d + start + i, size - i))
        for chunk in range(chunks - 1, -1, -1):
            opening, end = chunk * length, min((chunk + 1) * length, steps)
            for i in range(0, size, LANES):
                store(s, i, load_some(marks, (b * chunks + chunk) * d + start + i, size - i))
            for t in range(opening, end):
                if resets.size > 0 and resets[b * steps + t]:
                    s[:] = 0
                at_a = b * a_strides[0] + t * a_strides[1] + start
                at_x = b * x_strides[0] + t * x_strides[1] + start
                at_h = b * h_strides[0] + t * h_strides[1] + start
                at, out = (t - opening) * width, (b * steps + t) * d + start
                again(pairs, a, at_a, x, at_x, size, s, before, at, grad_h, at_h, grad_a, grad_x, out)
            sums[:] = 0
            for t in range(end - 1, opening - 1, -1):
                at_a = b * a_strides[0] + t * a_strides[1] + start
                at_h = b * h_strides[0] + t * h_strides[1] + start
                at, out = (t - opening) * width, (b * steps + t) * d + start
                next_a = at_a - length * a_strides[1]
                next_x = b * x_strides[0] + (t - length) * x_strides[1] + start
                if resets.size > 0 and resets[b * steps + t]:
                    start_anew(grad_h, at_h, grad_a, grad_x, out, constant, size, g)
                elif constant:
                    retreat_constant(
                        pairs, a, at_a, x, next_x, grad_h, at_h, before, at, sums, grad_x, out, size, g
                    )
                else:
                    retreat(
                        pairs, a, at_a, next_a, x, next_x, grad_h, at_h,
                        before, at, grad_a, grad_x, out, size, g,
                    )  # fmt: skip
            if constant:
                for i in range(0, size, LANES):
                    store(whole_sums, i, load(whole_sums, i) + wide(load(sums, i)))
        for i in range(0, size, LANES):
            store_some(grad_state, b * d + start + i, size - i, load(g, i))
            if constant:
                store_some(part_a, b * d + start + i, size - i, load(whole_sums, i))
