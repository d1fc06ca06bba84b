"""Numba kernels of the delta rule: one tile is one head of one batch row, taken in chunks of 16 steps.

With gates d_i (0 at a reset), e_i = d_0 ... d_i (what is left at i of the state S before the chunk), f_j =
d_{j+1} ... d_15 (what is left of step j at its end) and L[i, j] = d_{j+1} ... d_i, a chunk finds its writes w
by forward substitution and uses them like the values of gated linear attention:

    r_i = v_i - e_i S^T k_i,             w_i = beta_i r_i - sum_{j < i} B[i, j] w_j,
    y_i = e_i S^T q_i + sum_{j <= i} A[i, j] w_j,        S' = e_15 S + sum_j f_j k_j w_j^T,

    A[i, j] = L[i, j] q_i . k_j,  B[i, j] = beta_i L[i, j] k_i . k_j.

The forward kernel saves S every SPAN chunks; the backward kernel takes the spans in reverse, recomputes the
states and writes inside one, and goes back through its chunks. Nothing is shared between tiles, so nothing
depends on the number of threads.
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
def gates(log_decay, at, pitch, resets, row, steps, d, e, f, L):
    """Fill e, f and the lower triangle of L of one chunk; steps beyond its end keep everything."""
    store(d, 0, zeros(d))
    if log_decay.size:
        for i in range(steps):
            d[i] = log_decay[at + i * pitch]
    store(d, 0, exp2(load(d, 0) * LOG2_E))
    if resets.size:
        for i in range(steps):
            if resets[row + i]:
                d[i] = 0
    left = d.dtype.type(1)
    for i in range(LANES):
        left *= d[i]
        e[i] = left
        for j in range(i):
            L[i * LANES + j] = L[(i - 1) * LANES + j] * d[i]
        L[i * LANES + i] = 1
    for j in range(LANES):
        f[j] = L[(LANES - 1) * LANES + j]


@njit(nogil=True, cache=True)
def scale_rows(x, factors, sign, width, out):
    """out = x with row i times ``sign * factors[i]``."""
    for i in range(LANES):
        factor = spread(factors, i) * sign
        for c in range(0, width, LANES):
            store(out, i * width + c, load(x, i * width + c) * factor)


@njit(nogil=True, cache=True)
def products(x, KT, L, width, out):
    """out[i, j] = L[i, j] x_i . k_j, zero above the diagonal as L is."""
    clear(out, LANES * LANES)
    add_product(out, 0, LANES, x, 0, width, 1, KT, 0, LANES, LANES, LANES, width)
    for i in range(0, LANES * LANES, LANES):
        store(out, i, load(out, i) * load(L, i))


@njit(nogil=True, cache=True)
def writes(K, KT, beta, e, L, S, at, kw, vw, scaled, KK, B, R, to, W):
    """KK, B, and from V in R at ``to``: r in its place, and w."""
    products(K, KT, L, kw, KK)
    for i in range(LANES):
        store(B, i * LANES, load(KK, i * LANES) * spread(beta, i))
    scale_rows(K, e, -1.0, kw, scaled)
    add_product(R, to, vw, scaled, 0, kw, 1, S, at, vw, LANES, vw, kw)
    for i in range(LANES):
        factor = spread(beta, i)
        for c in range(0, vw, LANES):
            w = load(R, to + i * vw + c) * factor
            for j in range(i):
                w = w - spread(B, i * LANES + j) * load(W, to + j * vw + c)
            store(W, to + i * vw + c, w)


@njit(nogil=True, cache=True)
def next_state(S, at, kept, X, left, kw, vw, out, to):
    """out = left S + kept^T X."""
    for i in range(0, kw * vw, LANES):
        store(out, to + i, load(S, at + i) * left)
    add_product(out, to, vw, kept, 0, 1, kw, X, 0, vw, kw, vw, LANES)


@njit(nogil=True, cache=True)
def forward(first, last, sizes, strides, q, k, v, beta, log_decay, state, resets, y, final, marks):
    """Tiles [first, last); flat arrays, absent ones empty; sizes t, h, k, v, then strides of the inputs."""
    t, h, ks, vs = sizes
    (q_b, q_t, q_h), (k_b, k_t, k_h), (v_b, v_t, v_h), (b_b, b_t), (g_b, g_t) = strides
    kw, vw = padded(ks), padded(vs)
    chunks = (t + LANES - 1) // LANES
    spans = (chunks + SPAN - 1) // SPAN
    rows, wide, square = LANES * kw, LANES * vw, LANES * LANES
    Q, K, KT, scaled = scratch(rows, q), scratch(rows, q), scratch(rows, q), scratch(rows, q)
    R, W, Y, S = scratch(wide, q), scratch(wide, q), scratch(wide, q), scratch(kw * vw, q)
    d, e, f, beta_ = scratch(LANES, q), scratch(LANES, q), scratch(LANES, q), scratch(LANES, q)
    L, KK, A, B = scratch(square, q), scratch(square, q), scratch(square, q), scratch(square, q)
    for tile in range(first, last):
        b, head = tile // h, tile % h
        fetch_matrix(state, tile * ks * vs, ks, vs, S)
        for chunk in range(chunks):
            t0 = chunk * LANES
            row, steps = b * t + t0, min(t - t0, LANES)
            if marks.size and chunk % SPAN == 0:
                to = (tile * spans + chunk // SPAN) * kw * vw
                for i in range(0, kw * vw, LANES):
                    store(marks, to + i, load(S, i))
            fetch(q, b * q_b + t0 * q_t + head * q_h, q_t, steps, ks, Q, LANES)
            fetch(k, b * k_b + t0 * k_t + head * k_h, k_t, steps, ks, K, LANES)
            fetch(v, b * v_b + t0 * v_t + head * v_h, v_t, steps, vs, R, LANES)
            gates(log_decay, b * g_b + t0 * g_t + head, g_t, resets, row, steps, d, e, f, L)
            for i in range(LANES):
                beta_[i] = beta[b * b_b + (t0 + i) * b_t + head] if i < steps else 0
            flip(K, kw, KT, 0, LANES)
            writes(K, KT, beta_, e, L, S, 0, kw, vw, scaled, KK, B, R, 0, W)
            products(Q, KT, L, kw, A)
            scale_rows(Q, e, 1.0, kw, scaled)
            clear(Y, wide)
            add_product(Y, 0, vw, scaled, 0, kw, 1, S, 0, vw, LANES, vw, kw)
            add_lower(Y, vw, A, W)
            send(Y, steps, vs, y, (row * h + head) * vs, h * vs, LANES)
            scale_rows(K, f, 1.0, kw, scaled)
            next_state(S, 0, scaled, W, e[LANES - 1], kw, vw, S, 0)
        send_matrix(S, ks, vs, final, tile * ks * vs)


@njit(nogil=True, cache=True)
def solve_back(B, X, width):
    """X[j] -= sum over i > j of B[i, j] X[i], from the last row up: the transposed system."""
    for j in range(LANES - 2, -1, -1):
        for c in range(0, width, LANES):
            x = load(X, j * width + c)
            for i in range(j + 1, LANES):
                x = x - spread(B, i * LANES + j) * load(X, i * width + c)
            store(X, j * width + c, x)


@njit(nogil=True, cache=True)
def dot_rows(x, y, at, width, out):
    """out[i] += x_i . y_i, the rows of y from ``at`` on."""
    for i in range(LANES):
        both = zeros(x)
        for c in range(0, width, LANES):
            both += load(x, i * width + c) * load(y, at + i * width + c)
        out[i] += total(both)


@njit(nogil=True, cache=True)
def gate_gradients(from_start, to_end, through, M, columns, out):
    """Gradient of log d_s, as sums of like terms: no difference of large sums.

    It is part of what reaches outputs i >= s from before the chunk, of what steps j < s leave at its end, of
    what the first state leaves there, and of the pairs j < s <= i.
    """
    store(columns, 0, zeros(columns))
    later = through
    for s in range(LANES - 1, -1, -1):
        later += from_start[s]
        between = columns[s] * 0
        for j in range(s):
            columns[j] += M[s * LANES + j]
            between += columns[j]
        out[s] = later + between
    earlier = through * 0
    for s in range(LANES):
        out[s] += earlier
        earlier += to_end[s]


@njit(nogil=True, cache=True)
def backward(
    first,
    last,
    sizes,
    strides,
    q,
    k,
    v,
    beta,
    log_decay,
    resets,
    marks,
    grad_y,
    grad_final,
    grad_q,
    grad_k,
    grad_v,
    grad_beta,
    grad_log,
    grad_state,
):
    """Tiles [first, last) of the gradients; ``strides`` end with those of grad_y."""
    t, h, ks, vs = sizes
    (q_b, q_t, q_h), (k_b, k_t, k_h), (v_b, v_t, v_h), (b_b, b_t), (g_b, g_t), (y_b, y_t, y_h) = strides
    kw, vw = padded(ks), padded(vs)
    size, pair = kw * vw, 2 * LANES
    chunks = (t + LANES - 1) // LANES
    spans = (chunks + SPAN - 1) // SPAN
    rows, wide, square = LANES * kw, LANES * vw, LANES * LANES
    Q, K, KT, scaled = scratch(rows, q), scratch(rows, q), scratch(rows, q), scratch(rows, q)
    dQ, dK, part, T = scratch(rows, q), scratch(rows, q), scratch(rows, q), scratch(2 * rows, q)
    dY, dR, WT, turned = scratch(wide, q), scratch(wide, q), scratch(wide, q), scratch(2 * wide, q)
    V, W, R = scratch(wide, q), scratch(SPAN * wide, q), scratch(SPAN * wide, q)
    S, G = scratch(SPAN * size, q), scratch(size, q)
    d, e, f, beta_ = scratch(LANES, q), scratch(LANES, q), scratch(LANES, q), scratch(LANES, q)
    starts, ends, dbeta, dgate = scratch(LANES, q), scratch(LANES, q), scratch(LANES, q), scratch(LANES, q)
    L, KK, A, B = scratch(square, q), scratch(square, q), scratch(square, q), scratch(square, q)
    dA, dB, M, columns = scratch(square, q), scratch(square, q), scratch(square, q), scratch(LANES, q)
    for tile in range(first, last):
        b, head = tile // h, tile % h
        at_q, at_k, at_v = b * q_b + head * q_h, b * k_b + head * k_h, b * v_b + head * v_h
        at_b, at_g, at_y = b * b_b + head, b * g_b + head, b * y_b + head * y_h
        fetch_matrix(grad_final, tile * ks * vs, ks, vs, G)
        for span in range(spans - 1, -1, -1):
            begin, end = span * SPAN, min((span + 1) * SPAN, chunks)
            mark = (tile * spans + span) * size
            for i in range(0, size, LANES):
                store(S, i, load(marks, mark + i))
            for chunk in range(begin, end):
                t0, here, line = chunk * LANES, (chunk - begin) * size, (chunk - begin) * wide
                row, steps = b * t + t0, min(t - t0, LANES)
                fetch(k, at_k + t0 * k_t, k_t, steps, ks, K, LANES)
                fetch(v, at_v + t0 * v_t, v_t, steps, vs, V, LANES)
                for i in range(0, wide, LANES):
                    store(R, line + i, load(V, i))
                gates(log_decay, at_g + t0 * g_t, g_t, resets, row, steps, d, e, f, L)
                for i in range(LANES):
                    beta_[i] = beta[at_b + (t0 + i) * b_t] if i < steps else 0
                flip(K, kw, KT, 0, LANES)
                writes(K, KT, beta_, e, L, S, here, kw, vw, scaled, KK, B, R, line, W)
                if chunk < end - 1:
                    scale_rows(K, f, 1.0, kw, scaled)
                    for i in range(0, wide, LANES):
                        store(V, i, load(W, line + i))
                    next_state(S, here, scaled, V, e[LANES - 1], kw, vw, S, here + size)
            for chunk in range(end - 1, begin - 1, -1):
                t0, here, line = chunk * LANES, (chunk - begin) * size, (chunk - begin) * wide
                row, steps = b * t + t0, min(t - t0, LANES)
                fetch(q, at_q + t0 * q_t, q_t, steps, ks, Q, -LANES)
                fetch(k, at_k + t0 * k_t, k_t, steps, ks, K, -LANES)
                fetch(grad_y, at_y + t0 * y_t, y_t, steps, vs, dY, -LANES)
                gates(log_decay, at_g + t0 * g_t, g_t, resets, row, steps, d, e, f, L)
                for i in range(LANES):
                    beta_[i] = beta[at_b + (t0 + i) * b_t] if i < steps else 0
                for i in range(0, wide, LANES):
                    store(V, i, load(W, line + i))
                flip(V, vw, WT, 0, LANES)
                flip(K, kw, KT, 0, LANES)
                products(K, KT, L, kw, KK)
                products(Q, KT, L, kw, A)
                for i in range(LANES):
                    store(B, i * LANES, load(KK, i * LANES) * spread(beta_, i))
                # To the writes, through the triangular system, to r.
                scale_rows(K, f, 1.0, kw, scaled)
                clear(dR, wide)
                add_product(dR, 0, vw, scaled, 0, kw, 1, G, 0, vw, LANES, vw, kw)
                add_lower_turned(dR, vw, A, dY)
                solve_back(B, dR, vw)
                # To the two triangles, A and -B as they multiply w, and from there to L and the products.
                clear(dA, square)
                add_product(dA, 0, LANES, dY, 0, vw, 1, WT, 0, LANES, LANES, LANES, vw)
                clear(dB, square)
                add_product(dB, 0, LANES, dR, 0, vw, 1, WT, 0, LANES, LANES, LANES, vw)
                store(dbeta, 0, zeros(q))
                dot_rows(dR, R, line, vw, dbeta)
                for i in range(LANES):
                    at = i * LANES
                    dB[at + i] = 0
                    weight, lost = load(dA, at) * load(L, at), load(dB, at) * -1.0
                    dbeta[i] += total(lost * load(KK, at))
                    store(M, at, load(dA, at) * load(A, at) + lost * load(B, at))
                    store(dA, at, weight)
                    store(dB, at, lost * load(L, at) * spread(beta_, i))
                scale_rows(dR, beta_, 1.0, vw, dR)
                # Through the state before the chunk to q and k, through the one after it to k.
                flip(dY, vw, turned, 0, pair)
                flip(dR, vw, turned, LANES, pair)
                clear(T, 2 * rows)
                add_product(T, 0, pair, S, here, vw, 1, turned, 0, pair, kw, pair, vw)
                unflip(T, 0, pair, kw, dQ)
                scale_rows(dQ, e, 1.0, kw, dQ)
                unflip(T, LANES, pair, kw, dK)
                scale_rows(dK, e, -1.0, kw, dK)
                clear(T, rows)
                add_product(T, 0, LANES, G, 0, vw, 1, WT, 0, LANES, kw, LANES, vw)
                unflip(T, 0, LANES, kw, part)
                scale_rows(part, f, 1.0, kw, part)
                if log_decay.size:
                    store(starts, 0, zeros(q))
                    store(ends, 0, zeros(q))
                    dot_rows(Q, dQ, 0, kw, starts)
                    dot_rows(K, dK, 0, kw, starts)
                    dot_rows(K, part, 0, kw, ends)
                    both = zeros(q)
                    for i in range(0, size, LANES):
                        both += load(S, here + i) * load(G, i)
                    gate_gradients(starts, ends, total(both) * e[LANES - 1], M, columns, dgate)
                    for i in range(steps):
                        grad_log[(row + i) * h + head] = dgate[i]
                for i in range(0, rows, LANES):
                    store(dK, i, load(dK, i) + load(part, i))
                add_lower(dQ, kw, dA, K)
                add_lower_turned(dK, kw, dA, Q)
                add_lower(dK, kw, dB, K)
                add_lower_turned(dK, kw, dB, K)
                scale_rows(Q, e, 1.0, kw, scaled)
                next_state(G, 0, scaled, dY, e[LANES - 1], kw, vw, G, 0)
                scale_rows(K, e, -1.0, kw, scaled)
                add_product(G, 0, vw, scaled, 0, 1, kw, dR, 0, vw, kw, vw, LANES)
                out = row * h + head
                send(dQ, steps, ks, grad_q, out * ks, h * ks, -LANES)
                send(dK, steps, ks, grad_k, out * ks, h * ks, -LANES)
                send(dR, steps, vs, grad_v, out * vs, h * vs, -LANES)
                for i in range(steps):
                    grad_beta[(row + i) * h + head] = dbeta[i]
        send_matrix(G, ks, vs, grad_state, tile * ks * vs)
