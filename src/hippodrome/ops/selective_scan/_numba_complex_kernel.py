"""Numba kernels of the selective scan with a complex A, on the plan of those with a real one.

Arrays of complex numbers come as real ones with the parts of each number side by side, so that n here counts
both and is even: tiles, chunks, checkpoints, gathering and sums are those of ``_numba_kernel``. The
recurrence takes two coordinates at a time through the chunk, real and imaginary parts in vectors of their
own; its decay is exp2 of the real part, turned by cosine and sine of the imaginary one.

Gradients are with respect to real and imaginary parts: with s that of the state behind a step and h the state
before it, conj(a) s is that of h, and conj(a) s conj(h) that of the decay's logarithm dt A.

u, z, y and their gradients, and dt, B and C, may be bfloat16; all else is float32 or float64.
"""

import numpy as np
from numba import njit

from hippodrome.ops._lanes_kernel import (
    LANES,
    LOG2_E,
    exp2,
    load,
    load_some,
    prefetch,
    scratch,
    sigmoid,
    softplus,
    spread,
    store,
    store_some,
    wide,
    zeros,
)
from hippodrome.ops._sums_kernel import quarters
from hippodrome.ops._waves_kernel import wave
from hippodrome.ops.selective_scan._numba_kernel import FOUR, _gather, _rows, _scatter, _totals


@njit(nogil=True)
def _decay(delta, re, im):
    """exp(delta (re + i im)), real and imaginary part."""
    size = exp2(delta * (re * LOG2_E))
    cosine, sine = wave(delta * im)
    return size * cosine, size * sine


@njit(nogil=True, cache=True)
def forward(
    first, last, sizes, strides, use_softplus, u, dt, A, B, C, D, z, bias, state, resets, y, final, marks
):
    """Tiles [first, last); flat arrays, absent ones empty; sizes and strides as ``numba_`` gives them."""
    t, d, n, m, g, span, group = sizes
    (u_b, u_t), (dt_b, dt_t), (z_b, z_t), (B_b, B_t, B_g), (C_b, C_t, C_g) = strides
    width = d // g
    blocks = (width + LANES - 1) // LANES
    groups = (blocks + group - 1) // group
    chunks = (t + span - 1) // span
    row = m * LANES
    rates, h = scratch(group * row, A), scratch(group * row, A)
    Bs, Cs = scratch(span * m + LANES, A), scratch(span * m + LANES, A)
    deltas, drive, outs = scratch(span * LANES, A), scratch(span * LANES, A), scratch(span * LANES, A)
    for tile in range(first, last):
        low = (tile % groups) * group
        high = min(low + group, blocks)
        part, b = (tile // groups) % g, tile // groups // g
        for block in range(low, high):
            start, size, at = part * width + block * LANES, width - block * LANES, (block - low) * row
            _gather(A, start * n, size, n, m, 1.0, rates, at)
            _gather(state, (b * d + start) * n, size, n, m, 1.0, h, at)
        for chunk in range(chunks):
            t0 = chunk * span
            steps = min(t - t0, span)
            _rows(B, b * B_b + t0 * B_t + part * B_g, B_t, steps, n, m, Bs)
            _rows(C, b * C_b + t0 * C_t + part * C_g, C_t, steps, n, m, Cs)
            for block in range(low, high):
                start, size, at = part * width + block * LANES, width - block * LANES, (block - low) * row
                if marks.size:
                    to = (((b * chunks + chunk) * g + part) * blocks + block) * row
                    for k in range(m):
                        store(marks, to + k * LANES, load(h, at + k * LANES))
                shift = load_some(bias, start, size) if bias.size else zeros(A)
                skip = load_some(D, start, size) if D.size else zeros(A)
                for i in range(steps):
                    ahead = t0 + span + i
                    prefetch(u, b * u_b + ahead * u_t + start, 0)
                    prefetch(dt, b * dt_b + ahead * dt_t + start, 0)
                    if z.size:
                        prefetch(z, b * z_b + ahead * z_t + start, 0)
                    prefetch(y, (b * t + t0 + i) * d + start, 1)
                    delta = load_some(dt, b * dt_b + (t0 + i) * dt_t + start, size) + shift
                    if use_softplus:
                        delta = softplus(delta)
                    x = load_some(u, b * u_b + (t0 + i) * u_t + start, size)
                    store(deltas, i * LANES, delta)
                    store(drive, i * LANES, x * delta)
                    store(outs, i * LANES, x * skip)
                for k in range(0, m, 4):
                    j = at + k * LANES
                    r0, r1 = load(rates, j), load(rates, j + LANES)
                    r2, r3 = load(rates, j + 2 * LANES), load(rates, j + 3 * LANES)
                    h0, h1 = load(h, j), load(h, j + LANES)
                    h2, h3 = load(h, j + 2 * LANES), load(h, j + 3 * LANES)
                    for i in range(steps):
                        if resets.size and resets[b * t + t0 + i]:
                            h0, h1, h2, h3 = zeros(A), zeros(A), zeros(A), zeros(A)
                        delta, x, c = load(deltas, i * LANES), load(drive, i * LANES), i * m + k
                        a0, a1 = _decay(delta, r0, r1)
                        a2, a3 = _decay(delta, r2, r3)
                        h0, h1 = (
                            a0 * h0 - a1 * h1 + x * spread(Bs, c),
                            a1 * h0 + a0 * h1 + x * spread(Bs, c + 1),
                        )
                        h2, h3 = (
                            a2 * h2 - a3 * h3 + x * spread(Bs, c + 2),
                            a3 * h2 + a2 * h3 + x * spread(Bs, c + 3),
                        )
                        real = h0 * spread(Cs, c) + h2 * spread(Cs, c + 2)
                        imaginary = h1 * spread(Cs, c + 1) + h3 * spread(Cs, c + 3)
                        store(outs, i * LANES, load(outs, i * LANES) + 2.0 * (real - imaginary))
                    store(h, j, h0)
                    store(h, j + LANES, h1)
                    store(h, j + 2 * LANES, h2)
                    store(h, j + 3 * LANES, h3)
                for i in range(steps):
                    out = load(outs, i * LANES)
                    if z.size:
                        gate = load_some(z, b * z_b + (t0 + i) * z_t + start, size)
                        out = out * gate * sigmoid(gate)
                    store_some(y, (b * t + t0 + i) * d + start, size, out)
        for block in range(low, high):
            start, size, at = part * width + block * LANES, width - block * LANES, (block - low) * row
            _scatter(h, at, min(size, LANES), n, final, (b * d + start) * n)


@njit(nogil=True)
def _retrace(k, m, steps, cut, rates, at, deltas, drive, Bs, Cs, outs, trail, decays):
    """Two coordinates' states and decays through a chunk: trail holds the state before it in row 0."""
    j = at + k * LANES
    r0, r1 = load(rates, j), load(rates, j + LANES)
    r2, r3 = load(rates, j + 2 * LANES), load(rates, j + 3 * LANES)
    h0, h1 = load(trail, 0), load(trail, LANES)
    h2, h3 = load(trail, 2 * LANES), load(trail, 3 * LANES)
    for i in range(steps):
        delta, x, c, to = load(deltas, i * LANES), load(drive, i * LANES), i * m + k, i * FOUR
        a0, a1 = _decay(delta, r0, r1)
        a2, a3 = _decay(delta, r2, r3)
        if cut[i]:
            h0, h1, h2, h3 = zeros(trail), zeros(trail), zeros(trail), zeros(trail)
        h0, h1 = a0 * h0 - a1 * h1 + x * spread(Bs, c), a1 * h0 + a0 * h1 + x * spread(Bs, c + 1)
        h2, h3 = a2 * h2 - a3 * h3 + x * spread(Bs, c + 2), a3 * h2 + a2 * h3 + x * spread(Bs, c + 3)
        store(decays, to, a0)
        store(decays, to + LANES, a1)
        store(decays, to + 2 * LANES, a2)
        store(decays, to + 3 * LANES, a3)
        store(trail, to + FOUR, h0)
        store(trail, to + FOUR + LANES, h1)
        store(trail, to + FOUR + 2 * LANES, h2)
        store(trail, to + FOUR + 3 * LANES, h3)
        real = h0 * spread(Cs, c) + h2 * spread(Cs, c + 2)
        imaginary = h1 * spread(Cs, c + 1) + h3 * spread(Cs, c + 3)
        store(outs, i * LANES, load(outs, i * LANES) + 2.0 * (real - imaginary))


@njit(nogil=True)
def _back(
    k, m, steps, cut, rates, at, deltas, drive, pulls, Bs, Cs, trail, decays, carry, sum_A, grad_xs,
    grad_deltas, sums_B, sums_C,
):  # fmt: skip
    """The same two coordinates' gradients back through the chunk; ``carry`` is that of the state behind."""
    j = at + k * LANES
    r0, r1 = load(rates, j), load(rates, j + LANES)
    r2, r3 = load(rates, j + 2 * LANES), load(rates, j + 3 * LANES)
    s0, s1 = load(carry, j), load(carry, j + LANES)
    s2, s3 = load(carry, j + 2 * LANES), load(carry, j + 3 * LANES)
    A0, A1, A2, A3 = zeros(trail), zeros(trail), zeros(trail), zeros(trail)
    to = steps * FOUR
    h0, h1 = load(trail, to), load(trail, to + LANES)
    h2, h3 = load(trail, to + 2 * LANES), load(trail, to + 3 * LANES)
    for i in range(steps - 1, -1, -1):
        delta, x, c = load(deltas, i * LANES), load(drive, i * LANES), i * m + k
        # y = 2 (Re C Re h - Im C Im h): the imaginary parts pull with the sign turned.
        pull = 2.0 * load(pulls, i * LANES)
        push = -1.0 * pull
        s0, s1 = s0 + pull * spread(Cs, c), s1 + push * spread(Cs, c + 1)
        s2, s3 = s2 + pull * spread(Cs, c + 2), s3 + push * spread(Cs, c + 3)
        q = c * (LANES // 4)
        store(sums_B, q, load(sums_B, q) + quarters(s0 * x, s1 * x, s2 * x, s3 * x))
        store(sums_C, q, load(sums_C, q) + quarters(h0 * pull, h1 * push, h2 * pull, h3 * push))
        even = s0 * spread(Bs, c) + s2 * spread(Bs, c + 2)
        odd = s1 * spread(Bs, c + 1) + s3 * spread(Bs, c + 3)
        store(grad_xs, i * LANES, load(grad_xs, i * LANES) + (even + odd))
        to = i * FOUR
        h0, h1 = load(trail, to), load(trail, to + LANES)
        h2, h3 = load(trail, to + 2 * LANES), load(trail, to + 3 * LANES)
        if cut[i]:
            s0, s1, s2, s3 = zeros(trail), zeros(trail), zeros(trail), zeros(trail)
        else:
            a0, a1 = load(decays, to), load(decays, to + LANES)
            a2, a3 = load(decays, to + 2 * LANES), load(decays, to + 3 * LANES)
            s0, s1 = a0 * s0 + a1 * s1, a0 * s1 - a1 * s0
            s2, s3 = a2 * s2 + a3 * s3, a2 * s3 - a3 * s2
            p0, p1 = s0 * h0 + s1 * h1, s1 * h0 - s0 * h1
            p2, p3 = s2 * h2 + s3 * h3, s3 * h2 - s2 * h3
            A0, A1, A2, A3 = A0 + p0 * delta, A1 + p1 * delta, A2 + p2 * delta, A3 + p3 * delta
            change = (p0 * r0 + p2 * r2) + (p1 * r1 + p3 * r3)
            store(grad_deltas, i * LANES, load(grad_deltas, i * LANES) + change)
    store(carry, j, s0)
    store(carry, j + LANES, s1)
    store(carry, j + 2 * LANES, s2)
    store(carry, j + 3 * LANES, s3)
    # Sums over time run in float64 from chunk to chunk.
    store(sum_A, j, load(sum_A, j) + wide(A0))
    store(sum_A, j + LANES, load(sum_A, j + LANES) + wide(A1))
    store(sum_A, j + 2 * LANES, load(sum_A, j + 2 * LANES) + wide(A2))
    store(sum_A, j + 3 * LANES, load(sum_A, j + 3 * LANES) + wide(A3))


@njit(nogil=True, cache=True)
def backward(
    first, last, sizes, strides, use_softplus, u, dt, A, B, C, D, z, bias, resets, marks, grad_y, grad_final,
    grad_u, grad_dt, grad_z, grad_state, part_A, part_B, part_C, part_D, part_bias,
):  # fmt: skip
    """Tiles [first, last) of the gradients; those of A, D and bias still apart by row, of B and C by tile."""
    t, d, n, m, g, span, group = sizes
    (u_b, u_t), (dt_b, dt_t), (z_b, z_t), (B_b, B_t, B_g), (C_b, C_t, C_g), (y_b, y_t) = strides
    width = d // g
    blocks = (width + LANES - 1) // LANES
    groups = (blocks + group - 1) // group
    chunks = (t + span - 1) // span
    row = m * LANES
    rates, carry = scratch(group * row, A), scratch(group * row, A)
    doubles = np.empty(0)
    all_A = scratch(group * row, doubles)
    all_D, all_bias = scratch(group * LANES, doubles), scratch(group * LANES, doubles)
    Bs, Cs = scratch(span * m + LANES, A), scratch(span * m + LANES, A)
    sums_B, sums_C = scratch(span * row // 4, A), scratch(span * row // 4, A)
    trail, decays = scratch((span + 1) * FOUR, A), scratch(span * FOUR, A)
    xs, deltas, slopes = scratch(span * LANES, A), scratch(span * LANES, A), scratch(span * LANES, A)
    drive, pulls, turns = scratch(span * LANES, A), scratch(span * LANES, A), scratch(span * LANES, A)
    outs, grad_xs = scratch(span * LANES, A), scratch(span * LANES, A)
    grad_deltas, space = scratch(span * LANES, A), scratch(LANES, A)
    cut = np.zeros(span, np.bool_)
    for tile in range(first, last):
        low = (tile % groups) * group
        high = min(low + group, blocks)
        part, b = (tile // groups) % g, tile // groups // g
        all_A[:], all_D[:], all_bias[:] = 0, 0, 0
        for block in range(low, high):
            start, size, at = part * width + block * LANES, width - block * LANES, (block - low) * row
            _gather(A, start * n, size, n, m, 1.0, rates, at)
            _gather(grad_final, (b * d + start) * n, size, n, m, 1.0, carry, at)
        for chunk in range(chunks - 1, -1, -1):
            t0 = chunk * span
            steps = min(t - t0, span)
            _rows(B, b * B_b + t0 * B_t + part * B_g, B_t, steps, n, m, Bs)
            _rows(C, b * C_b + t0 * C_t + part * C_g, C_t, steps, n, m, Cs)
            sums_B[:], sums_C[:] = 0, 0
            if resets.size:
                for i in range(steps):
                    cut[i] = resets[b * t + t0 + i]
            for block in range(low, high):
                start, size, at = part * width + block * LANES, width - block * LANES, (block - low) * row
                mark = (((b * chunks + chunk) * g + part) * blocks + block) * row
                shift = load_some(bias, start, size) if bias.size else zeros(A)
                skip = load_some(D, start, size) if D.size else zeros(A)
                for i in range(steps):
                    ahead = t0 - span + i
                    prefetch(u, b * u_b + ahead * u_t + start, 0)
                    prefetch(dt, b * dt_b + ahead * dt_t + start, 0)
                    prefetch(grad_y, b * y_b + ahead * y_t + start, 0)
                    to = (b * t + t0 + i) * d + start
                    prefetch(grad_u, to, 1)
                    prefetch(grad_dt, to, 1)
                    delta = load_some(dt, b * dt_b + (t0 + i) * dt_t + start, size) + shift
                    if use_softplus:
                        store(slopes, i * LANES, sigmoid(delta))
                        delta = softplus(delta)
                    x = load_some(u, b * u_b + (t0 + i) * u_t + start, size)
                    pull = load_some(grad_y, b * y_b + (t0 + i) * y_t + start, size)
                    if z.size:
                        prefetch(z, b * z_b + ahead * z_t + start, 0)
                        prefetch(grad_z, to, 1)
                        gate = load_some(z, b * z_b + (t0 + i) * z_t + start, size)
                        open_ = sigmoid(gate)
                        store(turns, i * LANES, pull * open_ * (1.0 + gate * (1.0 - open_)))
                        pull = pull * gate * open_
                    store(xs, i * LANES, x)
                    store(deltas, i * LANES, delta)
                    store(drive, i * LANES, x * delta)
                    store(pulls, i * LANES, pull)
                    store(outs, i * LANES, x * skip)
                    store(grad_xs, i * LANES, zeros(A))
                    store(grad_deltas, i * LANES, zeros(A))
                for k in range(0, m, 4):
                    for j in range(0, FOUR, LANES):
                        store(trail, j, load(marks, mark + k * LANES + j))
                    _retrace(k, m, steps, cut, rates, at, deltas, drive, Bs, Cs, outs, trail, decays)
                    _back(
                        k, m, steps, cut, rates, at, deltas, drive, pulls, Bs, Cs, trail, decays, carry,
                        all_A, grad_xs, grad_deltas, sums_B, sums_C,
                    )  # fmt: skip
                grad_skip, grad_shift = zeros(A), zeros(A)
                for i in range(steps):
                    to = (b * t + t0 + i) * d + start
                    if z.size:
                        store_some(grad_z, to, size, load(outs, i * LANES) * load(turns, i * LANES))
                    x, pull, grad_x = load(xs, i * LANES), load(pulls, i * LANES), load(grad_xs, i * LANES)
                    store_some(grad_u, to, size, grad_x * load(deltas, i * LANES) + pull * skip)
                    grad_delta = load(grad_deltas, i * LANES) + grad_x * x
                    if use_softplus:
                        grad_delta = grad_delta * load(slopes, i * LANES)
                    store_some(grad_dt, to, size, grad_delta)
                    grad_shift += grad_delta
                    grad_skip += pull * x
                j = (block - low) * LANES
                store(all_D, j, load(all_D, j) + wide(grad_skip))
                store(all_bias, j, load(all_bias, j) + wide(grad_shift))
            _totals(sums_B, steps, n, m, space, part_B, (tile * t + t0) * n)
            _totals(sums_C, steps, n, m, space, part_C, (tile * t + t0) * n)
        for block in range(low, high):
            start, at = part * width + block * LANES, (block - low) * row
            size = min(width - block * LANES, LANES)
            _scatter(all_A, at, size, n, part_A, (b * d + start) * n)
            _scatter(carry, at, size, n, grad_state, (b * d + start) * n)
            for i in range(size):
                if D.size:
                    part_D[b * d + start + i] = all_D[(block - low) * LANES + i]
                if bias.size:
                    part_bias[b * d + start + i] = all_bias[(block - low) * LANES + i]
