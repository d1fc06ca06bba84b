"""Numba kernels of the selective scan over a grid: a tile is a batch row and sixteen channels.

The states of all variates at one time lie in a scratch array, row j + 1 that of variate j, row 0 zeros: the
border in front of the first. Each row holds h1 of all n numbers, then h2. A cell overwrites its row; what it
finds there is one step earlier, and the row before is already that of now.

Rates, couplings, states and what is saved of them come tile by tile, sixteen channels innermost, so that they
are read in order; lanes without a channel hold a rate of -1 and zeros. ``sizes`` is (t, v, d, n).
"""

from numba import njit

from hippodrome.ops._lanes_kernel import (
    LANES,
    expm1,
    load,
    load_some,
    put,
    scratch,
    spread,
    store,
    store_some,
    total,
    zeros,
)


@njit(nogil=True, cache=True)
def forward(first, last, sizes, x, dt, A, K, B, C, state, resets, y, final, marks):
    """Tiles [first, last): outputs, the last states, and all states where ``marks`` has room for them."""
    t, v, d, n = sizes
    blocks = (d + LANES - 1) // LANES
    half = n * LANES
    s, inverse = scratch((v + 1) * 2 * half, A), scratch(2 * half, A)
    for tile in range(first, last):
        b, start = tile // blocks, tile % blocks * LANES
        size, rates = d - start, tile % blocks * 2 * half
        for i in range(0, 2 * half, LANES):
            store(inverse, i, 1.0 / load(A, rates + i))
        for i in range(0, 2 * v * half, LANES):
            store(s, 2 * half + i, load(state, tile * 2 * v * half + i))
        for k in range(t):
            if resets.size > 0 and resets[b * t + k]:
                s[:] = 0
            for j in range(v):
                cell = (b * t + k) * v + j
                row = (j + 1) * 2 * half
                mark = ((tile * t + k) * v + j) * 2 * half
                u = load_some(x, cell * d + start, size)
                step1 = load_some(dt, 2 * cell * d + start, size)
                step2 = load_some(dt, (2 * cell + 1) * d + start, size)
                out = zeros(A)
                for m in range(n):
                    at, number = m * LANES, 2 * cell * n + m
                    rate = rates + at
                    p1, p2 = load(s, row + at), load(s, row + half + at)
                    q1, q2 = load(s, row - 2 * half + at), load(s, row - half + at)
                    f1 = expm1(step1 * load(A, rate))
                    f2 = expm1(step2 * load(A, rate + half))
                    in1 = load(inverse, at) * spread(B, number) * u
                    in2 = load(inverse, half + at) * spread(B, number + n) * u
                    h1 = p1 + f1 * (p1 - load(K, rate) * p2 + in1)
                    h2 = q2 + f2 * (q2 - load(K, rate + half) * q1 + in2)
                    store(s, row + at, h1)
                    store(s, row + half + at, h2)
                    out = out + spread(C, number) * h1 + spread(C, number + n) * h2
                    if marks.size > 0:
                        store(marks, mark + at, h1)
                        store(marks, mark + half + at, h2)
                store_some(y, cell * d + start, size, out)
        for i in range(0, 2 * v * half, LANES):
            store(final, tile * 2 * v * half + i, load(s, 2 * half + i))


@njit(nogil=True, cache=True)
def backward(
    first, last, sizes, x, dt, A, K, B, C, state, resets, marks, grad_y, grad_final,
    grad_x, grad_dt, part_A, part_K, part_B, part_C, grad_state,
):  # fmt: skip
    """Tiles [first, last): the gradients of inputs, steps and first states, and each tile's part of the rest.

    ``p`` holds what comes from the next time, ``q`` what comes from the next variate.
    """
    t, v, d, n = sizes
    blocks = (d + LANES - 1) // LANES
    half = n * LANES
    inverse, nothing = scratch(2 * half, A), scratch(2 * half, A)
    p, q, to_A, to_K = (
        scratch(2 * v * half, A),
        scratch(2 * half, A),
        scratch(2 * half, A),
        scratch(2 * half, A),
    )
    for tile in range(first, last):
        b, start = tile // blocks, tile % blocks * LANES
        size, rates = d - start, tile % blocks * 2 * half
        to_A[:] = 0
        to_K[:] = 0
        for i in range(0, 2 * half, LANES):
            store(inverse, i, 1.0 / load(A, rates + i))
        for i in range(0, 2 * v * half, LANES):
            store(p, i, load(grad_final, tile * 2 * v * half + i))
        for k in range(t - 1, -1, -1):
            fresh = resets.size > 0 and resets[b * t + k]
            q[:] = 0
            for j in range(v - 1, -1, -1):
                cell = (b * t + k) * v + j
                row = 2 * j * half
                mark = ((tile * t + k) * v + j) * 2 * half
                before, at_before = marks, mark - 2 * v * half
                if fresh:
                    before, at_before = nothing, 0
                elif k == 0:
                    before, at_before = state, (tile * v + j) * 2 * half
                beside, at_beside = marks, mark - 2 * half
                if j == 0:
                    beside, at_beside = nothing, 0
                u = load_some(x, cell * d + start, size)
                step1 = load_some(dt, 2 * cell * d + start, size)
                step2 = load_some(dt, (2 * cell + 1) * d + start, size)
                g = load_some(grad_y, cell * d + start, size)
                to_u, to_step1, to_step2 = zeros(A), zeros(A), zeros(A)
                for m in range(n):
                    at, number, part = (
                        m * LANES,
                        2 * cell * n + m,
                        2 * (cell * blocks + tile % blocks) * n + m,
                    )
                    rate = rates + at
                    A1, A2 = load(A, rate), load(A, rate + half)
                    K1, K2 = load(K, rate), load(K, rate + half)
                    f1, f2 = expm1(step1 * A1), expm1(step2 * A2)
                    p1, p2 = load(before, at_before + at), load(before, at_before + half + at)
                    q1, q2 = load(beside, at_beside + at), load(beside, at_beside + half + at)
                    put(part_C, part, total(g * load(marks, mark + at)))
                    put(part_C, part + n, total(g * load(marks, mark + half + at)))
                    g1 = g * spread(C, number) + load(p, row + at) + load(q, at)
                    g2 = g * spread(C, number + n) + load(p, row + half + at) + load(q, half + at)
                    r1, r2 = load(inverse, at), load(inverse, half + at)
                    B1, B2 = spread(B, number), spread(B, number + n)
                    w1, w2 = g1 * f1, g2 * f2
                    # What one more unit of dt A does to the state.
                    e1 = g1 * (p1 - K1 * p2 + r1 * B1 * u) * (1.0 + f1)
                    e2 = g2 * (q2 - K2 * q1 + r2 * B2 * u) * (1.0 + f2)
                    to_step1 = to_step1 + e1 * A1
                    to_step2 = to_step2 + e2 * A2
                    store(to_A, at, load(to_A, at) + e1 * step1 - w1 * r1 * r1 * B1 * u)
                    store(to_A, half + at, load(to_A, half + at) + e2 * step2 - w2 * r2 * r2 * B2 * u)
                    store(to_K, at, load(to_K, at) - w1 * p2)
                    store(to_K, half + at, load(to_K, half + at) - w2 * q1)
                    to_u = to_u + w1 * r1 * B1 + w2 * r2 * B2
                    put(part_B, part, total(w1 * r1 * u))
                    put(part_B, part + n, total(w2 * r2 * u))
                    if fresh:
                        store(p, row + at, zeros(A))
                        store(p, row + half + at, zeros(A))
                    else:
                        store(p, row + at, g1 + w1)
                        store(p, row + half + at, zeros(A) - w1 * K1)
                    store(q, at, zeros(A) - w2 * K2)
                    store(q, half + at, g2 + w2)
                store_some(grad_x, cell * d + start, size, to_u)
                store_some(grad_dt, 2 * cell * d + start, size, to_step1)
                store_some(grad_dt, (2 * cell + 1) * d + start, size, to_step2)
        for i in range(0, 2 * half, LANES):
            store(part_A, tile * 2 * half + i, load(to_A, i))
            store(part_K, tile * 2 * half + i, load(to_K, i))
        for i in range(0, 2 * v * half, LANES):
            store(grad_state, tile * 2 * v * half + i, load(p, i))
