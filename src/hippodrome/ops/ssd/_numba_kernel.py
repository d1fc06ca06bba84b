"""Numba kernels of SSD: chunks of time as small matrix products, with every intermediate kept in cache.

Decays are products of the steps' own factors d_i = exp(dt_i A), with d_i = 0 at a reset: within a chunk
L[i, j] = d_{j+1} ... d_i, e_i = d_0 ... d_i (what is left at i of the state before the chunk) and
f_j = d_{j+1} ... d_last (what is left of step j at its end). All are at most one: nothing overflows or
cancels. With u = dt x and K[i, j] = C_i . B_j, a chunk that begins with state S and ends with S' does

    y_i = e_i S C_i + sum_{j <= i} L[i, j] K[i, j] u_j,        S' = e_last S + sum_j f_j u_j B_j^T.

Tensors come as flat arrays with strides (batch, time, head or group), so that views into one wide projection
need no copy. ``sizes`` is (t, h, p, g, n, q), q the chunk. Rows are sliced before a loop runs over them: only
then does the compiler know that no index is negative, and vectorises.
"""

import math

import numpy as np
from numba import njit

from hippodrome.ops.ssd._matmul_kernel import BYTES, FAST, ROWS, add_product


def lanes(itemsize):
    """Elements in a vector register: what rows of a matrix are padded to."""
    return BYTES // itemsize


@njit(nogil=True, cache=True)
def padded(size, unit):
    """``size`` rounded up to a multiple of ``unit``."""
    return (size + unit - 1) // unit * unit


@njit(nogil=True, cache=True)
def workspace(size, like):
    """An uninitialised flat array whose first element lies on a cache line."""
    raw = np.empty(size + 64 // like.itemsize, like.dtype)
    shift = (-raw.ctypes.data % 64) // like.itemsize
    return raw[shift : shift + size]


@njit(nogil=True, cache=True, fastmath=FAST)
def scale(out, row, factor):
    """out = row * factor; ``out`` may be ``row``."""
    for i in range(out.size):
        out[i] = row[i] * factor


@njit(nogil=True, cache=True, fastmath=FAST)
def multiply(out, row, other):
    """out = row * other, elementwise; ``out`` may be ``row``."""
    for i in range(out.size):
        out[i] = row[i] * other[i]


@njit(nogil=True, cache=True, fastmath=FAST)
def add(out, row):
    """out += row."""
    for i in range(out.size):
        out[i] += row[i]


@njit(nogil=True, cache=True, fastmath=FAST)
def add_scaled(out, row, factor):
    """out += row * factor."""
    for i in range(out.size):
        out[i] += row[i] * factor


@njit(nogil=True, cache=True, fastmath=FAST)
def dot(row, other):
    """row . other."""
    total = row.dtype.type(0)
    for i in range(row.size):
        total += row[i] * other[i]
    return total


@njit(nogil=True, cache=True, fastmath=FAST)
def to_column(row, out, stride):
    """Write ``row`` down a column of ``out`` whose elements lie ``stride`` apart."""
    column = out[::stride]
    for i in range(row.size):
        column[i] = row[i]


@njit(nogil=True, cache=True, fastmath=FAST)
def chunk_decays(dt, at, stride, rate, resets, at_reset, length, d, e, f):
    """Fill d, e and f of one chunk of one head; ``resets`` may be empty."""
    product = d.dtype.type(1)
    for i in range(length):
        d[i] = math.exp(dt[at + i * stride] * rate)
        if resets.size > 0 and resets[at_reset + i]:
            d[i] = 0
        product *= d[i]
        e[i] = product
    product = d.dtype.type(1)
    for i in range(length - 1, -1, -1):
        f[i] = product
        product *= d[i]


@njit(nogil=True, cache=True, fastmath=FAST)
def next_row(L, factor, i):
    """Turn L[i - 1, :] into L[i, :]."""
    # What has decayed this far is dropped: numbers below the normal range are slow on some machines.
    tiny = L.dtype.type(1e-30)
    for j in range(i):
        kept = L[j] * factor
        L[j] = 0 if kept < tiny else kept
    L[i] = 1


@njit(nogil=True, cache=True, fastmath=FAST)
def chunk_scores(B, at_b, row_b, C, at_c, row_c, length, n, flipped, scores, width):
    """Lower triangle of K[i, j] = C_i . B_j, rows of ``width``; ``flipped`` gets B transposed."""
    flipped[: n * width] = 0
    for j in range(length):
        at = at_b + j * row_b
        to_column(B[at : at + n], flipped[j:], width)
    scores[: length * width] = 0
    unit = BYTES // scores.itemsize
    for i in range(0, length, ROWS):
        rows = min(ROWS, length - i)
        columns = padded(i + rows, unit)
        at = at_c + i * row_c
        add_product(scores, i * width, width, C, at, row_c, 1, flipped, 0, width, rows, columns, n)


@njit(nogil=True, cache=True, fastmath=FAST)
def group_scores(first, last_tile, B, strides_b, C, strides_c, sizes, scores):
    """Tiles [first, last_tile): K of one chunk of one group of one batch row."""
    t, _, _, g, n, q = sizes
    width = padded(q, BYTES // scores.itemsize)
    chunks = (t + q - 1) // q
    flipped = workspace(n * width, scores)
    for tile in range(first, last_tile):
        b, c, group = tile // (chunks * g), tile // g % chunks, tile % g
        at_b = b * strides_b[0] + c * q * strides_b[1] + group * strides_b[2]
        at_c = b * strides_c[0] + c * q * strides_c[1] + group * strides_c[2]
        length = min(q, t - c * q)
        out = scores[tile * q * width : (tile + 1) * q * width]
        chunk_scores(B, at_b, strides_b[1], C, at_c, strides_c[1], length, n, flipped, out, width)


@njit(nogil=True, cache=True, fastmath=FAST)
def forward(
    first, last_tile, block, x, strides_x, dt, A, B, strides_b, C, strides_c, D, state, resets, scores, sizes,
    y, last,
):  # fmt: skip
    """Tiles [first, last_tile): ``block`` heads of one batch row each, chunk after chunk.

    Heads walk side by side: they find the chunk's B, C and K in cache, and read x in longer rows.
    """
    t, h, p, g, n, q = sizes
    unit = BYTES // y.itemsize
    width, wide = padded(q, unit), padded(p, unit)
    chunks, blocks, size = (t + q - 1) // q, (h + block - 1) // block, n * wide
    d, e, f, L = workspace(q, y), workspace(q, y), workspace(q, y), workspace(width, y)
    U, V, Y = workspace(q * wide, y), workspace(q * wide, y), workspace(q * wide, y)
    W, S = workspace(q * width, y), workspace(block * size, y)
    U[:] = 0
    V[:] = 0
    for tile in range(first, last_tile):
        b, head_from = tile // blocks, tile % blocks * block
        head_to = min(head_from + block, h)
        # States lie transposed here, n by p: the lanes of a register run over the channels of the head.
        S[:] = 0
        for head in range(head_from, head_to):
            for i in range(p):
                at = ((b * h + head) * p + i) * n
                to_column(state[at : at + n], S[(head - head_from) * size + i :], wide)
        for c in range(chunks):
            start = c * q
            length = min(q, t - start)
            for head in range(head_from, head_to):
                group = head // (h // g)
                at_s = (head - head_from) * size
                at_dt = (b * t + start) * h + head
                at_x = b * strides_x[0] + start * strides_x[1] + head * strides_x[2]
                at_b = b * strides_b[0] + start * strides_b[1] + group * strides_b[2]
                at_c = b * strides_c[0] + start * strides_c[1] + group * strides_c[2]
                at_k = ((b * chunks + c) * g + group) * q * width
                chunk_decays(dt, at_dt, h, A[head], resets, b * t + start, length, d, e, f)
                for i in range(length):
                    at = at_x + i * strides_x[1]
                    xi = x[at : at + p]
                    step = dt[at_dt + i * h]
                    scale(U[i * wide : i * wide + p], xi, step)
                    scale(V[i * wide : i * wide + p], xi, step * f[i])
                    next_row(L, d[i], i)
                    row = i * width
                    multiply(W[row : row + i + 1], L[: i + 1], scores[at_k + row : at_k + row + i + 1])
                    W[row + i + 1 : row + min(padded(i + 1, ROWS), width)] = 0
                Y[:] = 0
                add_product(Y, 0, wide, C, at_c, strides_c[1], 1, S, at_s, wide, length, wide, n)
                for i in range(length):
                    line = Y[i * wide : (i + 1) * wide]
                    scale(line, line, e[i])
                for i in range(0, length, ROWS):
                    rows = min(ROWS, length - i)
                    add_product(Y, i * wide, wide, W, i * width, width, 1, U, 0, wide, rows, wide, i + rows)
                for i in range(length):
                    at = at_x + i * strides_x[1]
                    out = ((b * t + start + i) * h + head) * p
                    y[out : out + p] = Y[i * wide : i * wide + p]
                    if D.size > 0:
                        add_scaled(y[out : out + p], x[at : at + p], D[head])
                scale(S[at_s : at_s + size], S[at_s : at_s + size], e[length - 1])
                add_product(S, at_s, wide, B, at_b, 1, strides_b[1], V, 0, wide, n, wide, length)
        for head in range(head_from, head_to):
            for i in range(p):
                column = S[(head - head_from) * size + i :: wide]
                at = ((b * h + head) * p + i) * n
                row = last[at : at + n]
                for k in range(n):
                    row[k] = column[k]


@njit(nogil=True, cache=True, fastmath=FAST)
def boundary_states(
    first, last_tile, pair, pairs, block, x, strides_x, dt, A, B, strides_b, C, strides_c, state, resets,
    sizes, grad_y, strides_y, grad_last, begins, ends, grad_state,
):  # fmt: skip
    """Tiles [first, last_tile): the states that chunks begin with and the gradients of those they end with.

    A tile takes ``block`` heads of the ``pairs`` heads from ``pair`` on, counted through the batch rows.
    n is a whole number of registers.
    """
    t, h, p, g, n, q = sizes
    chunks = (t + q - 1) // q
    size = p * n
    d, e, f = workspace(q, begins), workspace(q, begins), workspace(q, begins)
    scaled = workspace(q * p, begins)
    for tile in range(first, last_tile):
        local_from, local_to = tile * block, min((tile + 1) * block, pairs)
        for c in range(-1, chunks - 1):
            start = c * q
            for local in range(local_from, local_to):
                b, head = (pair + local) // h, (pair + local) % h
                group = head // (h // g)
                after = (local * chunks + c + 1) * size
                if c < 0:
                    outer = (pair + local) * size
                    begins[after : after + size] = state[outer : outer + size]
                    continue
                at_dt = (b * t + start) * h + head
                chunk_decays(dt, at_dt, h, A[head], resets, b * t + start, q, d, e, f)
                for j in range(q):
                    at = b * strides_x[0] + (start + j) * strides_x[1] + head * strides_x[2]
                    scale(scaled[j * p : (j + 1) * p], x[at : at + p], dt[at_dt + j * h] * f[j])
                scale(begins[after : after + size], begins[after - size : after], e[q - 1])
                at_b = b * strides_b[0] + start * strides_b[1] + group * strides_b[2]
                add_product(begins, after, n, scaled, 0, 1, p, B, at_b, strides_b[1], p, n, q)
        for c in range(chunks - 1, -1, -1):
            start = c * q
            length = min(q, t - start)
            for local in range(local_from, local_to):
                b, head = (pair + local) // h, (pair + local) % h
                group = head // (h // g)
                here = (local * chunks + c) * size
                outer = (pair + local) * size
                if c == chunks - 1:
                    ends[here : here + size] = grad_last[outer : outer + size]
                chunk_decays(
                    dt, (b * t + start) * h + head, h, A[head], resets, b * t + start, length, d, e, f
                )
                for j in range(length):
                    at = b * strides_y[0] + (start + j) * strides_y[1] + head * strides_y[2]
                    scale(scaled[j * p : (j + 1) * p], grad_y[at : at + p], e[j])
                at_c = b * strides_c[0] + start * strides_c[1] + group * strides_c[2]
                into, at = (ends, here - size) if c > 0 else (grad_state, outer)
                scale(into[at : at + size], ends[here : here + size], e[length - 1])
                add_product(into, at, n, scaled, 0, 1, p, C, at_c, strides_c[1], p, n, length)


@njit(nogil=True, cache=True, fastmath=FAST)
def decay_gradients(length, width, M, columns, r, s, z, out):
    """Gradient of each log decay a_k of a chunk, as sums of like terms: no difference of large sums.

    a_k is part of every M[i, j] with j < k <= i, of what reaches outputs i >= k from before the chunk (r), of
    what steps j < k leave at its end (s), and of what the first state leaves there (z).
    """
    columns[:length] = 0
    later = r.dtype.type(0)
    for k in range(length - 1, -1, -1):
        later += r[k]
        add(columns[:k], M[k * width : k * width + k])
        total = r.dtype.type(0)
        for j in range(k):
            total += columns[j]
        out[k] = z + later + total
    earlier = s.dtype.type(0)
    for k in range(length):
        out[k] += earlier
        earlier += s[k]


@njit(nogil=True, cache=True, fastmath=FAST)
def within_chunk(length, width, d, steps, L, K, M, W, grad_scores):
    """From M = grad_y x^T make W = L K, add K's gradient to ``grad_scores``, make M the gradient of log L."""
    unit = 2 * BYTES // M.itemsize
    for i in range(length):
        row, end = i * width, i * width + i + 1
        next_row(L, d[i], i)
        multiply(W[row:end], L[: i + 1], K[row:end])
        W[end : row + min(padded(i + 1, unit), width)] = 0
        multiply(M[row:end], M[row:end], L[: i + 1])
        multiply(M[row:end], M[row:end], steps[: i + 1])
        add(grad_scores[row:end], M[row:end])
        multiply(M[row:end], M[row:end], K[row:end])


@njit(nogil=True, cache=True, fastmath=FAST)
def backward(
    first, last_tile, pair, pairs, x, strides_x, dt, A, B, strides_b, C, strides_c, D, resets, sizes,
    grad_y, strides_y, begins, ends, grad_scores, grad_x, grad_dt, grad_rate, grad_skip, grad_b, grad_c,
):  # fmt: skip
    """Tiles [first, last_tile): a chunk of a group of a batch row, for its heads in [pair, pair + pairs).

    What heads share (the gradients of B, C and K) is added up in the order of the heads, whoever runs it.
    """
    t, h, p, g, n, q = sizes
    per = h // g
    unit = BYTES // grad_x.itemsize
    width = padded(q, unit)
    chunks = (t + q - 1) // q
    d, e, f = workspace(q, grad_x), workspace(q, grad_x), workspace(q, grad_x)
    r, s, rates, columns = (
        workspace(q, grad_x),
        workspace(q, grad_x),
        workspace(q, grad_x),
        workspace(q, grad_x),
    )
    L, steps = workspace(width, grad_x), workspace(width, grad_x)
    K, W, M = workspace(q * width, grad_x), workspace(q * width, grad_x), workspace(q * width, grad_x)
    flipped, X = workspace(n * width, grad_x), workspace(p * width, grad_x)
    grad_u, T = workspace(p * width, grad_x), workspace(q * n, grad_x)
    X[:] = 0
    steps[:] = 0
    for tile in range(first, last_tile):
        b, c, group = tile // (chunks * g), tile // g % chunks, tile % g
        head_from = max(group * per, pair - b * h)
        head_to = min((group + 1) * per, pair + pairs - b * h)
        if head_from >= head_to:
            continue
        start = c * q
        length = min(q, t - start)
        row_x, row_y, row_b, row_c, row_g = strides_x[1], strides_y[1], strides_b[1], strides_c[1], g * n
        at_b = b * strides_b[0] + start * row_b + group * strides_b[2]
        at_c = b * strides_c[0] + start * row_c + group * strides_c[2]
        at_g = ((b * t + start) * g + group) * n
        chunk_scores(B, at_b, row_b, C, at_c, row_c, length, n, flipped, K, width)
        shared = tile * q * width
        for head in range(head_from, head_to):
            at_x = b * strides_x[0] + start * row_x + head * strides_x[2]
            at_y = b * strides_y[0] + start * row_y + head * strides_y[2]
            at_dt = (b * t + start) * h + head
            at_s = ((b * h + head - pair) * chunks + c) * p * n
            chunk_decays(dt, at_dt, h, A[head], resets, b * t + start, length, d, e, f)
            for j in range(length):
                steps[j] = dt[at_dt + j * h]
                to_column(x[at_x + j * row_x : at_x + j * row_x + p], X[j:], width)

            M[:] = 0
            for i in range(0, length, ROWS):
                rows = min(ROWS, length - i)
                columns_m, at = padded(i + rows, unit), at_y + i * row_y
                add_product(M, i * width, width, grad_y, at, row_y, 1, X, 0, width, rows, columns_m, p)
            within_chunk(length, width, d, steps, L, K, M, W, grad_scores[shared : shared + q * width])

            # To u = dt x: from the state at the end, then from the outputs within the chunk.
            grad_u[:] = 0
            add_product(grad_u, 0, width, ends, at_s, n, 1, flipped, 0, width, p, width, n)
            for i in range(p):
                row = grad_u[i * width : i * width + length]
                multiply(row, row, f[:length])
            for j in range(0, padded(length, unit), 2 * unit):
                block, at, place = min(2 * unit, width - j), at_y + j * row_y, j * width + j
                add_product(grad_u, j, width, grad_y, at, 1, row_y, W, place, width, p, block, length - j)

            # To C from the state at the beginning, to B from the one at the end.
            T[:] = 0
            add_product(T, 0, n, grad_y, at_y, row_y, 1, begins, at_s, n, length, n, p)
            for i in range(length):
                row, at = T[i * n : (i + 1) * n], at_c + i * row_c
                add_scaled(grad_c[at_g + i * row_g : at_g + i * row_g + n], row, e[i])
                r[i] = e[i] * dot(row, C[at : at + n])
            T[:] = 0
            add_product(T, 0, n, X, 0, 1, width, ends, at_s, n, length, n, p)
            for j in range(length):
                row, at, kept = T[j * n : (j + 1) * n], at_b + j * row_b, f[j] * steps[j]
                add_scaled(grad_b[at_g + j * row_g : at_g + j * row_g + n], row, kept)
                s[j] = kept * dot(row, B[at : at + n])
            z = e[length - 1] * dot(begins[at_s : at_s + p * n], ends[at_s : at_s + p * n])
            decay_gradients(length, width, M, columns, r, s, z, rates)

            skip = D[head] if D.size > 0 else D.dtype.type(0)
            grad_d = T.dtype.type(0)
            for j in range(length):
                out = ((b * t + start + j) * h + head) * p
                row, column, step = grad_x[out : out + p], grad_u[j::width], steps[j]
                for i in range(p):
                    row[i] = step * column[i]
                if D.size > 0:
                    gy = grad_y[at_y + j * row_y : at_y + j * row_y + p]
                    add_scaled(row, gy, skip)
                    grad_d += dot(gy, x[at_x + j * row_x : at_x + j * row_x + p])
            # From here on ``columns`` holds the gradient of dt as the factor of x.
            columns[:] = 0
            for i in range(p):
                xi, gi = X[i * width : i * width + length], grad_u[i * width : i * width + length]
                for j in range(length):
                    columns[j] += xi[j] * gi[j]
            grad_a = T.dtype.type(0)
            for j in range(length):
                grad_dt[at_dt + j * h] = columns[j] + A[head] * rates[j]
                grad_a += steps[j] * rates[j]
            grad_rate[(b * chunks + c) * h + head] = grad_a
            grad_skip[(b * chunks + c) * h + head] = grad_d

        if head_to == (group + 1) * per:
            for i in range(0, length, ROWS):
                rows = min(ROWS, length - i)
                out, at, until = at_g + i * row_g, shared + i * width, i + rows
                add_product(grad_c, out, row_g, grad_scores, at, width, 1, B, at_b, row_b, rows, n, until)
                at, below = at + i, at_c + i * row_c
                add_product(
                    grad_b, out, row_g, grad_scores, at, 1, width, C, below, row_c, rows, n, length - i
                )
