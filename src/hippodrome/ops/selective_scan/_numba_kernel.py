"""Numba kernels of the selective scan: one tile is one batch row and a few blocks of sixteen channels.

Time advances inside the tile in chunks. A block's states lie in scratch as one vector of sixteen channels
for each state coordinate, so that the sum over the state stays in the lanes. What does not depend on the
state (softplus, the gate) is done for a chunk at once, before and after the recurrence, where its latency
hides. The forward kernel saves the state at the start of each chunk; the backward kernel takes the chunks
in reverse, recomputes the states inside one, and scans back through them. The gradients of B and C are
summed over the blocks of a tile in the lanes, then over tiles by ``fold`` in a fixed order: nothing
depends on how tiles are spread over threads.
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
    total,
    wide,
    zeros,
)

LN_2 = 1.0 / LOG2_E


@njit(nogil=True)
def _gather(source, first, size, n, factor, target, at):
    """Rows of ``size`` channels by n, times a factor, into n vectors of sixteen channels, zeros behind."""
    for k in range(n):
        for i in range(LANES):
            target[at + k * LANES + i] = source[first + i * n + k] * factor if i < size else 0


@njit(nogil=True)
def _scatter(source, at, size, n, target, first):
    """The way back of ``_gather``."""
    for i in range(size):
        for k in range(n):
            target[first + i * n + k] = source[at + k * LANES + i]


@njit(nogil=True, cache=True)
def forward(
    first, last, sizes, strides, use_softplus, u, dt, A, B, C, D, z, bias, state, resets, y, final, marks
):
    """Tiles [first, last); flat arrays, absent ones empty; sizes and strides as ``numba_`` gives them."""
    t, d, n, g, span, group = sizes
    (u_b, u_t), (dt_b, dt_t), (z_b, z_t), (B_b, B_t, B_g), (C_b, C_t, C_g) = strides
    width = d // g
    blocks = (width + LANES - 1) // LANES
    groups = (blocks + group - 1) // group
    chunks = (t + span - 1) // span
    rates, h = scratch(group * n * LANES, u), scratch(group * n * LANES, u)
    deltas, drive, outs = (
        scratch(span * LANES, u),
        scratch(span * LANES, u),
        scratch(span * LANES, u),
    )
    for tile in range(first, last):
        low = (tile % groups) * group
        high = min(low + group, blocks)
        part, b = (tile // groups) % g, tile // groups // g
        for block in range(low, high):
            start, size, at = part * width + block * LANES, width - block * LANES, (block - low) * n * LANES
            _gather(A, start * n, size, n, LOG2_E, rates, at)
            _gather(state, (b * d + start) * n, size, n, 1.0, h, at)
        for chunk in range(chunks):
            t0 = chunk * span
            steps = min(t - t0, span)
            for block in range(low, high):
                start, size, at = (
                    part * width + block * LANES,
                    width - block * LANES,
                    (block - low) * n * LANES,
                )
                if marks.size:
                    to = (((b * chunks + chunk) * g + part) * blocks + block) * n * LANES
                    for k in range(n):
                        store(marks, to + k * LANES, load(h, at + k * LANES))
                shift = load_some(bias, start, size) if bias.size else zeros(u)
                skip = load_some(D, start, size) if D.size else zeros(u)
                for i in range(steps):
                    delta = load_some(dt, b * dt_b + (t0 + i) * dt_t + start, size) + shift
                    if use_softplus:
                        delta = softplus(delta)
                    x = load_some(u, b * u_b + (t0 + i) * u_t + start, size)
                    store(deltas, i * LANES, delta)
                    store(drive, i * LANES, x * delta)
                    store(outs, i * LANES, x * skip)
                jb, jc = b * B_b + t0 * B_t + part * B_g, b * C_b + t0 * C_t + part * C_g
                for i in range(steps):
                    ahead = t0 + span + i
                    prefetch(u, b * u_b + ahead * u_t + start, 0)
                    prefetch(dt, b * dt_b + ahead * dt_t + start, 0)
                    if z.size:
                        prefetch(z, b * z_b + ahead * z_t + start, 0)
                    prefetch(y, (b * t + t0 + i) * d + start, 1)
                    if resets.size and resets[b * t + t0 + i]:
                        for k in range(n):
                            store(h, at + k * LANES, zeros(u))
                    delta, x, out = load(deltas, i * LANES), load(drive, i * LANES), load(outs, i * LANES)
                    for k in range(n):
                        j = at + k * LANES
                        v = exp2(delta * load(rates, j)) * load(h, j) + x * spread(B, jb + k)
                        store(h, j, v)
                        out += v * spread(C, jc + k)
                    store(outs, i * LANES, out)
                    jb, jc = jb + B_t, jc + C_t
                for i in range(steps):
                    out = load(outs, i * LANES)
                    if z.size:
                        gate = load_some(z, b * z_b + (t0 + i) * z_t + start, size)
                        out = out * gate * sigmoid(gate)
                    store_some(y, (b * t + t0 + i) * d + start, size, out)
        for block in range(low, high):
            start, size, at = part * width + block * LANES, width - block * LANES, (block - low) * n * LANES
            _scatter(h, at, min(size, LANES), n, final, (b * d + start) * n)


@njit(nogil=True, cache=True)
def backward(
    first,
    last,
    sizes,
    strides,
    use_softplus,
    u,
    dt,
    A,
    B,
    C,
    D,
    z,
    bias,
    resets,
    marks,
    grad_y,
    grad_final,
    grad_u,
    grad_dt,
    grad_z,
    grad_state,
    part_A,
    part_B,
    part_C,
    part_D,
    part_bias,
):
    """Tiles [first, last) of the gradients; those of A, D and bias still apart by row, of B and C by tile."""
    t, d, n, g, span, group = sizes
    (u_b, u_t), (dt_b, dt_t), (z_b, z_t), (B_b, B_t, B_g), (C_b, C_t, C_g), (y_b, y_t) = strides
    width = d // g
    blocks = (width + LANES - 1) // LANES
    groups = (blocks + group - 1) // group
    chunks = (t + span - 1) // span
    row = n * LANES
    rates, carry = scratch(group * row, u), scratch(group * row, u)
    doubles = np.empty(0)
    all_A, all_D, all_bias = (
        scratch(group * row, doubles),
        scratch(group * LANES, doubles),
        scratch(group * LANES, doubles),
    )
    sum_A = scratch(row, u)
    # For each step and state coordinate, side by side: the state after the step, its decay, and the sums for
    # B and C. Row 0 holds the state before the chunk, the last row stays zero: what precedes a reset.
    trail = scratch((span + 2) * 4 * row, u)
    nothing = (span + 1) * 4 * row
    xs, deltas, slopes, drive, pulls, turns = (
        scratch(span * LANES, u),
        scratch(span * LANES, u),
        scratch(span * LANES, u),
        scratch(span * LANES, u),
        scratch(span * LANES, u),
        scratch(span * LANES, u),
    )
    for tile in range(first, last):
        low = (tile % groups) * group
        high = min(low + group, blocks)
        part, b = (tile // groups) % g, tile // groups // g
        all_A[:], all_D[:], all_bias[:] = 0, 0, 0
        for block in range(low, high):
            start, size, at = part * width + block * LANES, width - block * LANES, (block - low) * row
            _gather(A, start * n, size, n, LOG2_E, rates, at)
            _gather(grad_final, (b * d + start) * n, size, n, 1.0, carry, at)
        for chunk in range(chunks - 1, -1, -1):
            t0 = chunk * span
            steps = min(t - t0, span)
            for i in range(n, (steps + 1) * n):
                store(trail, i * 4 * LANES + 2 * LANES, zeros(u))
                store(trail, i * 4 * LANES + 3 * LANES, zeros(u))
            for block in range(low, high):
                start, size, at = part * width + block * LANES, width - block * LANES, (block - low) * row
                mark = (((b * chunks + chunk) * g + part) * blocks + block) * row
                for k in range(n):
                    store(trail, k * 4 * LANES, load(marks, mark + k * LANES))
                    store(sum_A, k * LANES, zeros(u))
                shift = load_some(bias, start, size) if bias.size else zeros(u)
                skip = load_some(D, start, size) if D.size else zeros(u)
                for i in range(steps):
                    delta = load_some(dt, b * dt_b + (t0 + i) * dt_t + start, size) + shift
                    if use_softplus:
                        store(slopes, i * LANES, sigmoid(delta))
                        delta = softplus(delta)
                    x = load_some(u, b * u_b + (t0 + i) * u_t + start, size)
                    pull = load_some(grad_y, b * y_b + (t0 + i) * y_t + start, size)
                    if z.size:
                        prefetch(grad_z, (b * t + t0 + i) * d + start, 1)
                        gate = load_some(z, b * z_b + (t0 + i) * z_t + start, size)
                        open_ = sigmoid(gate)
                        store(turns, i * LANES, pull * open_ * (1.0 + gate * (1.0 - open_)))
                        pull = pull * gate * open_
                    store(xs, i * LANES, x)
                    store(deltas, i * LANES, delta)
                    store(drive, i * LANES, x * delta)
                    store(pulls, i * LANES, pull)
                jb, jc = b * B_b + t0 * B_t + part * B_g, b * C_b + t0 * C_t + part * C_g
                for i in range(steps):
                    ahead = t0 - span + i
                    prefetch(u, b * u_b + ahead * u_t + start, 0)
                    prefetch(dt, b * dt_b + ahead * dt_t + start, 0)
                    prefetch(grad_y, b * y_b + ahead * y_t + start, 0)
                    to = (b * t + t0 + i) * d + start
                    prefetch(grad_u, to, 1)
                    prefetch(grad_dt, to, 1)
                    reset = resets.size > 0 and resets[b * t + t0 + i]
                    after = (i + 1) * 4 * row
                    before = nothing if reset else i * 4 * row
                    delta, x = load(deltas, i * LANES), load(drive, i * LANES)
                    out = load(xs, i * LANES) * skip
                    for k in range(n):
                        decay = exp2(delta * load(rates, at + k * LANES))
                        v = decay * load(trail, before + k * 4 * LANES) + x * spread(B, jb + k)
                        store(trail, after + k * 4 * LANES, v)
                        store(trail, after + k * 4 * LANES + LANES, decay)
                        out += v * spread(C, jc + k)
                    if reset:
                        for k in range(n):
                            store(trail, after + k * 4 * LANES + LANES, zeros(u))
                    if z.size:
                        prefetch(z, b * z_b + ahead * z_t + start, 0)
                        store_some(grad_z, (b * t + t0 + i) * d + start, size, out * load(turns, i * LANES))
                    jb, jc = jb + B_t, jc + C_t
                grad_skip, grad_shift = zeros(u), zeros(u)
                for i in range(steps - 1, -1, -1):
                    jb, jc = jb - B_t, jc - C_t
                    reset = resets.size > 0 and resets[b * t + t0 + i]
                    after = (i + 1) * 4 * row
                    before = nothing if reset else i * 4 * row
                    delta, x, pull = load(deltas, i * LANES), load(drive, i * LANES), load(pulls, i * LANES)
                    grad_x, grad_delta = zeros(u), zeros(u)
                    for k in range(n):
                        j = after + k * 4 * LANES
                        s = load(carry, at + k * LANES) + pull * spread(C, jc + k)
                        store(trail, j + 2 * LANES, load(trail, j + 2 * LANES) + s * x)
                        store(trail, j + 3 * LANES, load(trail, j + 3 * LANES) + pull * load(trail, j))
                        grad_x += s * spread(B, jb + k)
                        s = s * load(trail, j + LANES)
                        store(carry, at + k * LANES, s)
                        s = s * load(trail, before + k * 4 * LANES)
                        store(sum_A, k * LANES, load(sum_A, k * LANES) + s * delta)
                        grad_delta += s * load(rates, at + k * LANES)
                    x = load(xs, i * LANES)
                    to = (b * t + t0 + i) * d + start
                    store_some(grad_u, to, size, grad_x * delta + pull * skip)
                    grad_delta = grad_delta * LN_2 + grad_x * x
                    if use_softplus:
                        grad_delta = grad_delta * load(slopes, i * LANES)
                    store_some(grad_dt, to, size, grad_delta)
                    grad_shift += grad_delta
                    grad_skip += pull * x
                # Sums over time run in float64 from chunk to chunk.
                for k in range(n):
                    j = at + k * LANES
                    store(all_A, j, load(all_A, j) + wide(load(sum_A, k * LANES)))
                j = (block - low) * LANES
                store(all_D, j, load(all_D, j) + wide(grad_skip))
                store(all_bias, j, load(all_bias, j) + wide(grad_shift))
            to = (tile * t + t0) * n
            for i in range(steps * n):
                part_B[to + i] = total(load(trail, (i + n) * 4 * LANES + 2 * LANES))
                part_C[to + i] = total(load(trail, (i + n) * 4 * LANES + 3 * LANES))
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


@njit(nogil=True, cache=True)
def fold(first, last, count, inner, width, parts, result):
    """Tiles [first, last) of result (outer, inner): parts (outer, count, inner) summed over count."""
    columns = (inner + width - 1) // width
    for tile in range(first, last):
        o, low = tile // columns, (tile % columns) * width
        for i in range(low, min(low + width, inner)):
            result[o * inner + i] = parts[o * count * inner + i]
        for k in range(1, count):
            at = (o * count + k) * inner
            for i in range(low, min(low + width, inner)):
                result[o * inner + i] += parts[at + i]
