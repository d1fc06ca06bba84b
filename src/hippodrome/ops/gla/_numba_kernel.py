"""Numba kernels of gated linear attention: one tile is one head of one batch row, in chunks of 16 steps.

With decays a_i (0 at a reset), e_i = a_0 ... a_i (what is left at i of the state S before the chunk),
f_j = a_{j+1} ... a_15 (what is left of step j at its end) and L[i, j] = a_{j+1} ... a_i, each a vector over
key channels, a chunk does

    A[i, j] = sum over channels of q_i L[i, j] k_j,  y_i = (e_i q_i) S + sum_{j <= i} A[i, j] v_j,
    S' = e_15 S + sum_j (f_j k_j) v_j^T.

All factors are products of decays, at most one: nothing overflows or cancels, however strong the decays. The
pairs cost 16 / v of the two products with S, so the chunk is as short as a vector; longer chunks lose more to
the pairs than they gain. The forward kernel saves S every SPAN chunks; the backward kernel takes the spans in
reverse, recomputes the states inside one, and goes back through its chunks. Nothing is shared between tiles,
so nothing depends on the number of threads.
"""

from numba import njit

from hippodrome.ops._chunks_kernel import (
    add_lower,
    add_lower_turned,
    clear,
    fetch,
    fetch_matrix,
    flip,
    padded,
    send,
    send_matrix,
    unflip,
)
from hippodrome.ops._lanes_kernel import LANES, LOG2_E, exp2, load, scratch, spread, store, total, zeros
from hippodrome.ops.ssd._matmul_kernel import add_product

SPAN = 8
"""Chunks from one saved state to the next."""


@njit(nogil=True, cache=True)
def decays(log_decay, at, pitch, resets, row, steps, size, a, e, f, ahead):
    """Fill a, e and f of one chunk; steps beyond its end keep everything."""
    width = padded(size)
    fetch(log_decay, at, pitch, steps, size, a, ahead)
    for c in range(0, width, LANES):
        left = zeros(a) + 1.0
        for i in range(LANES):
            here = i * width + c
            decay = exp2(load(a, here) * LOG2_E)
            if resets.size and i < steps and resets[row + i]:
                decay = zeros(a)
            left = left * decay
            store(a, here, decay)
            store(e, here, left)
        left = zeros(a) + 1.0
        for i in range(LANES - 1, -1, -1):
            here = i * width + c
            store(f, here, left)
            left = left * load(a, here)


@njit(nogil=True, cache=True)
def scale(x, factors, width, out):
    """out = x factors, elementwise, for sixteen rows."""
    for i in range(0, LANES * width, LANES):
        store(out, i, load(x, i) * load(factors, i))


@njit(nogil=True, cache=True)
def pairs(q, k, a, width, parts, A):
    """The lower triangle of A, row by row."""
    for j in range(LANES):
        for i in range(j, LANES):
            store(parts, i * LANES, zeros(a))
        for c in range(0, width, LANES):
            key = load(k, j * width + c)
            store(parts, j * LANES, load(parts, j * LANES) + load(q, j * width + c) * key)
            for i in range(j + 1, LANES):
                key = key * load(a, i * width + c)
                store(parts, i * LANES, load(parts, i * LANES) + load(q, i * width + c) * key)
        for i in range(j, LANES):
            A[i * LANES + j] = total(load(parts, i * LANES))


@njit(nogil=True, cache=True)
def next_state(S, at, keys, V, e, kw, vw, out, to):
    """out = e_15 S + keys^T V, where ``keys`` are the chunk's keys as they are left at its end."""
    for i in range(kw):
        kept = e[(LANES - 1) * kw + i]
        for c in range(0, vw, LANES):
            store(out, to + i * vw + c, load(S, at + i * vw + c) * kept)
    add_product(out, to, vw, keys, 0, 1, kw, V, 0, vw, kw, vw, LANES)


@njit(nogil=True, cache=True)
def forward(first, last, sizes, strides, q, k, v, log_decay, state, resets, y, final, marks):
    """Tiles [first, last); flat arrays, absent ones empty; sizes t, h, k, v, then strides of the inputs."""
    t, h, ks, vs = sizes
    (q_b, q_t, q_h), (k_b, k_t, k_h), (v_b, v_t, v_h), (g_b, g_t, g_h) = strides
    kw, vw = padded(ks), padded(vs)
    chunks = (t + LANES - 1) // LANES
    spans = (chunks + SPAN - 1) // SPAN
    Q, K, V, Y = (
        scratch(LANES * kw, q),
        scratch(LANES * kw, q),
        scratch(LANES * vw, q),
        scratch(LANES * vw, q),
    )
    a, e, f, S = scratch(LANES * kw, q), scratch(LANES * kw, q), scratch(LANES * kw, q), scratch(kw * vw, q)
    A, parts = scratch(LANES * LANES, q), scratch(LANES * LANES, q)
    for tile in range(first, last):
        b, head = tile // h, tile % h
        fetch_matrix(state, tile * ks * vs, ks, vs, S)
        for chunk in range(chunks):
            t0 = chunk * LANES
            steps = min(t - t0, LANES)
            if marks.size and chunk % SPAN == 0:
                to = (tile * spans + chunk // SPAN) * kw * vw
                for i in range(0, kw * vw, LANES):
                    store(marks, to + i, load(S, i))
            row, at_g = b * t + t0, b * g_b + t0 * g_t + head * g_h
            fetch(q, b * q_b + t0 * q_t + head * q_h, q_t, steps, ks, Q, LANES)
            fetch(k, b * k_b + t0 * k_t + head * k_h, k_t, steps, ks, K, LANES)
            fetch(v, b * v_b + t0 * v_t + head * v_h, v_t, steps, vs, V, LANES)
            decays(log_decay, at_g, g_t, resets, row, steps, ks, a, e, f, LANES)
            pairs(Q, K, a, kw, parts, A)
            scale(Q, e, kw, Q)
            scale(K, f, kw, K)
            clear(Y, LANES * vw)
            add_product(Y, 0, vw, Q, 0, kw, 1, S, 0, vw, LANES, vw, kw)
            add_lower(Y, vw, A, V)
            send(Y, steps, vs, y, (row * h + head) * vs, h * vs, LANES)
            next_state(S, 0, K, V, e, kw, vw, S, 0)
        send_matrix(S, ks, vs, final, tile * ks * vs)


@njit(nogil=True, cache=True)
def pairs_backward(q, k, a, dA, width, terms, parts, A, dq, dk, dg):
    """Add what passes through A to the gradients of q, k and log a; A itself on the way.

    A[i, j] holds every log a_s with j < s <= i: for each j the terms are summed from the last i down.
    """
    for i in range(0, LANES * LANES * LANES, LANES):
        store(parts, i, zeros(a))
    for c in range(0, width, LANES):
        for j in range(LANES):
            key, left = load(k, j * width + c), zeros(a) + 1.0
            to_key = zeros(a)
            for i in range(j, LANES):
                here = i * width + c
                if i > j:
                    left = left * load(a, here)
                query, weight = load(q, here) * left, spread(dA, i * LANES + j)
                to_key += weight * query
                store(dq, here, load(dq, here) + weight * left * key)
                pair = query * key
                store(terms, i * LANES, weight * pair)
                at = (i * LANES + j) * LANES
                store(parts, at, load(parts, at) + pair)
            here = j * width + c
            store(dk, here, load(dk, here) + to_key)
            run = zeros(a)
            for i in range(LANES - 1, j, -1):
                here = i * width + c
                run += load(terms, i * LANES)
                store(dg, here, load(dg, here) + run)
    for i in range(LANES):
        for j in range(i + 1):
            A[i * LANES + j] = total(load(parts, (i * LANES + j) * LANES))


@njit(nogil=True, cache=True)
def outer_decays(Q, K, dq, dk, z, width, dg):
    """Gradient of log a from the state before the chunk and to the one after it.

    log a_s is part of what reaches outputs i >= s from before the chunk, of what steps j < s leave at its
    end, and of what the first state leaves there (z): sums of like terms, no difference of large sums.
    """
    for c in range(0, width, LANES):
        run = load(z, c)
        for i in range(LANES - 1, -1, -1):
            here = i * width + c
            run += load(Q, here) * load(dq, here)
            store(dg, here, run)
        run = zeros(dg)
        for i in range(LANES):
            here = i * width + c
            store(dg, here, load(dg, here) + run)
            run += load(K, here) * load(dk, here)


@njit(nogil=True, cache=True)
def backward(
    first,
    last,
    sizes,
    strides,
    q,
    k,
    v,
    log_decay,
    resets,
    marks,
    grad_y,
    grad_final,
    grad_q,
    grad_k,
    grad_v,
    grad_log,
    grad_state,
):
    """Tiles [first, last) of the gradients; ``strides`` end with those of grad_y."""
    t, h, ks, vs = sizes
    (q_b, q_t, q_h), (k_b, k_t, k_h), (v_b, v_t, v_h), (g_b, g_t, g_h), (y_b, y_t, y_h) = strides
    kw, vw = padded(ks), padded(vs)
    size = kw * vw
    chunks = (t + LANES - 1) // LANES
    spans = (chunks + SPAN - 1) // SPAN
    rows, wide = LANES * kw, LANES * vw
    Q, K, QE, KF = scratch(rows, q), scratch(rows, q), scratch(rows, q), scratch(rows, q)
    a, e, f, T = scratch(rows, q), scratch(rows, q), scratch(rows, q), scratch(rows, q)
    dQ, dK, dG, z = scratch(rows, q), scratch(rows, q), scratch(rows, q), scratch(kw, q)
    V, dY, dV, VT, dYT = (
        scratch(wide, q),
        scratch(wide, q),
        scratch(wide, q),
        scratch(wide, q),
        scratch(wide, q),
    )
    S, G = scratch(SPAN * size, q), scratch(size, q)
    A, dA, terms = scratch(LANES * LANES, q), scratch(LANES * LANES, q), scratch(LANES * LANES, q)
    parts = scratch(LANES * LANES * LANES, q)
    for tile in range(first, last):
        b, head = tile // h, tile % h
        at_q, at_k, at_v = b * q_b + head * q_h, b * k_b + head * k_h, b * v_b + head * v_h
        at_g, at_y = b * g_b + head * g_h, b * y_b + head * y_h
        fetch_matrix(grad_final, tile * ks * vs, ks, vs, G)
        for span in range(spans - 1, -1, -1):
            begin, end = span * SPAN, min((span + 1) * SPAN, chunks)
            mark = (tile * spans + span) * size
            for i in range(0, size, LANES):
                store(S, i, load(marks, mark + i))
            for chunk in range(begin, end - 1):
                t0, here = chunk * LANES, (chunk - begin) * size
                fetch(k, at_k + t0 * k_t, k_t, LANES, ks, K, LANES)
                fetch(v, at_v + t0 * v_t, v_t, LANES, vs, V, LANES)
                decays(log_decay, at_g + t0 * g_t, g_t, resets, b * t + t0, LANES, ks, a, e, f, LANES)
                scale(K, f, kw, K)
                next_state(S, here, K, V, e, kw, vw, S, here + size)
            for chunk in range(end - 1, begin - 1, -1):
                t0, here = chunk * LANES, (chunk - begin) * size
                steps = min(t - t0, LANES)
                fetch(q, at_q + t0 * q_t, q_t, steps, ks, Q, -LANES)
                fetch(k, at_k + t0 * k_t, k_t, steps, ks, K, -LANES)
                fetch(v, at_v + t0 * v_t, v_t, steps, vs, V, -LANES)
                fetch(grad_y, at_y + t0 * y_t, y_t, steps, vs, dY, -LANES)
                decays(log_decay, at_g + t0 * g_t, g_t, resets, b * t + t0, steps, ks, a, e, f, -LANES)
                scale(Q, e, kw, QE)
                scale(K, f, kw, KF)
                flip(V, vw, VT, 0, LANES)
                flip(dY, vw, dYT, 0, LANES)
                clear(dA, LANES * LANES)
                add_product(dA, 0, LANES, dY, 0, vw, 1, VT, 0, LANES, LANES, LANES, vw)
                # Through the state before the chunk to q, through the one after it to k and v.
                clear(T, rows)
                add_product(T, 0, LANES, S, here, vw, 1, dYT, 0, LANES, kw, LANES, vw)
                unflip(T, 0, LANES, kw, dQ)
                scale(dQ, e, kw, dQ)
                clear(T, rows)
                add_product(T, 0, LANES, G, 0, vw, 1, VT, 0, LANES, kw, LANES, vw)
                unflip(T, 0, LANES, kw, dK)
                scale(dK, f, kw, dK)
                for i in range(kw):
                    both = zeros(q)
                    for c in range(0, vw, LANES):
                        both += load(S, here + i * vw + c) * load(G, i * vw + c)
                    z[i] = total(both) * e[(LANES - 1) * kw + i]
                outer_decays(Q, K, dQ, dK, z, kw, dG)
                pairs_backward(Q, K, a, dA, kw, terms, parts, A, dQ, dK, dG)
                clear(dV, wide)
                add_product(dV, 0, vw, KF, 0, kw, 1, G, 0, vw, LANES, vw, kw)
                add_lower_turned(dV, vw, A, dY)
                next_state(G, 0, QE, dY, e, kw, vw, G, 0)
                out = (b * t + t0) * h + head
                send(dQ, steps, ks, grad_q, out * ks, h * ks, -LANES)
                send(dK, steps, ks, grad_k, out * ks, h * ks, -LANES)
                send(dG, steps, ks, grad_log, out * ks, h * ks, -LANES)
                send(dV, steps, vs, grad_v, out * vs, h * vs, -LANES)
        send_matrix(G, ks, vs, grad_state, tile * ks * vs)
