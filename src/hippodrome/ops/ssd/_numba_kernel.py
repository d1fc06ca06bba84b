"""Numba kernels of SSD: chunks of time as small matrix products, with every intermediate kept in cache.

Decays are products of the steps' own factors d_i = exp(dt_i A), with d_i = 0 at a reset: within a chunk
L[i, j] = d_{j+1} ... d_i, e_i = d_0 ... d_i (what is left at i of the state before the chunk) and
f_j = d_{j+1} ... d_last (what is left of step j at its end). All are at most one: nothing overflows or
cancels. With K[i, j] = C_i . B_j, a chunk that begins with state S and ends with S' does

    y_i = e_i S C_i + sum_{j <= i} L[i, j] K[i, j] dt_j x_j,      S' = e_last S + sum_j f_j dt_j x_j B_j^T.

Backward, with g = grad_y, G the gradient of S' and M[i, j] = g_i . x_j,

    grad_x_j = dt_j (f_j G B_j + sum_{i >= j} L[i, j] K[i, j] g_i),   grad_K[i, j] = L[i, j] dt_j M[i, j],
    grad_C_i = e_i S^T g_i + sum_{j <= i} grad_K[i, j] B_j,   grad_S = e_last G + sum_i e_i g_i C_i^T,
    grad_B_j = f_j dt_j G^T x_j + sum_{i >= j} grad_K[i, j] C_i.

Tensors come as flat arrays with strides (batch, time, head or group), so that views into one wide projection
need no copy; dt and its gradient are (b, h, t). x, B, C, y and their gradients may be bfloat16, all else is
float32 or wider. What a chunk needs is first fetched into scratch, as rows or columns of whole vectors with
zeros behind them. States lie there n by p, so that the lanes of a vector are channels of the head. ``sizes``
is (t, h, p, g, n, q), q the chunk. Where the backward begins anew (every SEGMENT chunks) the forward leaves
the states in ``marks``.
"""

from llvmlite import ir
from numba import njit, types

from hippodrome.ops._chunks_kernel import padded, turn
from hippodrome.ops._lanes_kernel import (
    LANES,
    LOG2_E,
    exp2,
    intrinsic,
    load,
    load_some,
    prefetch,
    scratch,
    store,
    store_some,
    total,
    zeros,
)
from hippodrome.ops.ssd._matmul_kernel import ROWS, add_product

SEGMENT = 16
"""Chunks that the backward takes at once, each with the state it begins with at hand."""
TINY = 1e-30
"""What has decayed this far is dropped: numbers below the normal range are slow on some machines."""


def _numbers(builder, vector):
    """0, 1, ... as a vector of integers beside one of floats."""
    kind = ir.VectorType(ir.IntType(64), LANES)
    return kind, ir.Constant(kind, list(range(LANES)))


def _everywhere(builder, kind, value):
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
    zero = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zero)


@intrinsic
def below(typingctx, value, count):
    """The lanes before ``count``, zero in the others whatever they hold."""

    def generate(context, builder, sig, args):
        kind, numbers = _numbers(builder, args[0].type)
        bound = _everywhere(builder, kind, context.cast(builder, args[1], sig.args[1], types.intp))
        nothing = ir.Constant(args[0].type, [0.0] * LANES)
        return builder.select(builder.icmp_signed("<", numbers, bound), args[0], nothing)

    return value(value, count), generate


@intrinsic
def put_lane(typingctx, value, lane, number):
    """The lanes with one of them replaced."""

    def generate(context, builder, sig, args):
        kind, numbers = _numbers(builder, args[0].type)
        place = _everywhere(builder, kind, context.cast(builder, args[1], sig.args[1], types.intp))
        scalar = context.cast(builder, args[2], sig.args[2], value.dtype)
        single = _everywhere(builder, args[0].type, scalar)
        return builder.select(builder.icmp_signed("==", numbers, place), single, args[0])

    return value(value, lane, number), generate


@intrinsic
def drop_tiny(typingctx, value):
    """Zero where a lane is below TINY; NaN stays."""

    def generate(context, builder, sig, args):
        vector = args[0].type
        small = builder.fcmp_ordered("<", args[0], ir.Constant(vector, [TINY] * LANES))
        return builder.select(small, ir.Constant(vector, [0.0] * LANES), args[0])

    return value(value), generate


@njit(nogil=True, cache=True)
def place(strides, b, i, head):
    """Where a head's (or a group's) row of one step begins."""
    return b * strides[0] + i * strides[1] + head * strides[2]


@njit(nogil=True, cache=True)
def fetch(x, at, pitch, length, size, out):
    """Rows of ``size`` numbers, ``pitch`` apart, as padded rows; zeros below them to a whole square."""
    width, whole = padded(size), size - size % LANES
    for i in range(length):
        for c in range(0, whole, LANES):
            store(out, i * width + c, load(x, at + i * pitch + c))
        if whole < size:
            store(out, i * width + whole, load_some(x, at + i * pitch + whole, size - whole))
    for i in range(length * width, padded(length) * width, LANES):
        store(out, i, zeros(out))


@njit(nogil=True, cache=True)
def ask(x, at, pitch, length, size):
    """Bring the rows of the next chunk nearer, pieces of longer rows, which no hardware foresees."""
    for i in range(length):
        for c in range(0, size, 64 // x.itemsize):
            prefetch(x, at + i * pitch + c, 0)


@njit(nogil=True, cache=True)
def turn_rows(source, length, width, out, across):
    """Padded rows of ``width``, ``length`` of them, as columns: rows of ``out`` are ``across`` apart."""
    for i in range(0, length, LANES):
        for c in range(0, width, LANES):
            turn(source, i * width + c, width, out, c * across + i, across)


@njit(nogil=True, cache=True)
def fetch_state(state, at, p, n, room, out):
    """A dense state, p by n, as n by p with padded rows."""
    fetch(state, at, n, p, n, room)
    turn_rows(room, p, padded(n), out, padded(p))


@njit(nogil=True, cache=True)
def send_state(source, p, n, room, state, at):
    """The way back of ``fetch_state``; rows of ``source`` beyond n hold anything."""
    wide, across = padded(p), padded(n)
    turn_rows(source, n, wide, room, across)
    for i in range(p):
        for c in range(0, n, LANES):
            store_some(state, at + i * n + c, n - c, load(room, i * across + c))


@njit(nogil=True, cache=True)
def clear(out, at, count):
    """Zeros in ``count`` elements, whole vectors, from ``at`` on."""
    for i in range(at, at + count, LANES):
        store(out, i, zeros(out))


@njit(nogil=True, cache=True)
def scale(out, at, count, factor):
    """Multiply ``count`` elements, whole vectors, from ``at`` on."""
    for i in range(at, at + count, LANES):
        store(out, i, load(out, i) * factor)


@njit(nogil=True, cache=True)
def chunk_decays(dt, at, rate, resets, at_reset, length, steps, d, e, f):
    """Fill steps, d, e and f of one chunk of one head; ``resets`` may be empty, and steps behind it are 0."""
    for i in range(0, length, LANES):
        sizes = load_some(dt, at + i, length - i)
        store(steps, i, sizes)
        store(d, i, exp2(sizes * rate * LOG2_E))
    if resets.size > 0:
        for i in range(length):
            if resets[at_reset + i]:
                d[i] = 0
    product = d.dtype.type(1)
    for i in range(length):
        product *= d[i]
        e[i] = product
    product = d.dtype.type(1)
    for i in range(length - 1, -1, -1):
        f[i] = product
        product *= d[i]
    for i in range(length, padded(length)):
        e[i] = 0
        f[i] = 0


@njit(nogil=True, cache=True)
def group_scores(first, last_tile, B, strides_b, C, strides_c, dt, sizes, scores):
    """Tiles [first, last_tile): K of one chunk of one group of one batch row, rows of whole vectors."""
    t, _, _, g, n, q = sizes
    width, deep = padded(q), padded(n)
    chunks = (t + q - 1) // q
    b_rows, c_rows, flipped = scratch(width * deep, dt), scratch(width * deep, dt), scratch(width * deep, dt)
    for tile in range(first, last_tile):
        b, c, group = tile // (chunks * g), tile // g % chunks, tile % g
        at_b = place(strides_b, b, c * q, group)
        at_c = place(strides_c, b, c * q, group)
        length = min(q, t - c * q)
        fetch(B, at_b, strides_b[1], length, n, b_rows)
        fetch(C, at_c, strides_c[1], length, n, c_rows)
        turn_rows(b_rows, length, deep, flipped, width)
        clear(scores, tile * q * width, q * width)
        for i in range(0, length, ROWS):
            rows, at = min(ROWS, length - i), (tile * q + i) * width
            add_product(
                scores, at, width, c_rows, i * deep, deep, 1, flipped, 0, width, rows, padded(i + rows), n
            )


@njit(nogil=True, cache=True)
def take_states(length, p, n, e, f, steps, x_rows, room, b_rows, S, at_s):
    """Move a state over one chunk: S = e_last S + sum_j f_j dt_j x_j B_j^T."""
    wide, deep = padded(p), padded(n)
    for j in range(length):
        kept = f[j] * steps[j]
        for c in range(0, wide, LANES):
            store(room, j * wide + c, load(x_rows, j * wide + c) * kept)
    scale(S, at_s, n * wide, e[length - 1])
    add_product(S, at_s, wide, b_rows, 0, 1, deep, room, 0, wide, n, wide, length)


@njit(nogil=True, cache=True)
def forward(
    first, last_tile, block, x, strides_x, dt, A, B, strides_b, C, strides_c, D, state, resets, scores, sizes,
    y, last, marks,
):  # fmt: skip
    """Tiles [first, last_tile): ``block`` heads of one group of one batch row, chunk after chunk.

    Heads walk side by side: they share the chunk's rows of B and C and find its K in cache.
    """
    t, h, p, g, n, q = sizes
    per = h // g
    width, wide, deep = padded(q), padded(p), padded(n)
    chunks, blocks, size = (t + q - 1) // q, (per + block - 1) // block, n * wide
    steps, d, e, f = scratch(width, dt), scratch(width, dt), scratch(width, dt), scratch(width, dt)
    x_rows, room, Y = scratch(width * wide, dt), scratch(width * wide, dt), scratch(width * wide, dt)
    b_rows, c_rows, W = scratch(width * deep, dt), scratch(width * deep, dt), scratch(width * width, dt)
    S, square = scratch(block * deep * wide, dt), scratch(deep * wide, dt)
    for tile in range(first, last_tile):
        b, group = tile // (blocks * g), tile // blocks % g
        head_from = group * per + tile % blocks * block
        head_to = min(head_from + block, (group + 1) * per)
        for head in range(head_from, head_to):
            if state.size > 0:
                fetch_state(state, (b * h + head) * p * n, p, n, square, S[(head - head_from) * size :])
            else:
                clear(S, (head - head_from) * size, size)
        for c in range(chunks):
            start = c * q
            length = min(q, t - start)
            fetch(B, place(strides_b, b, start, group), strides_b[1], length, n, b_rows)
            fetch(C, place(strides_c, b, start, group), strides_c[1], length, n, c_rows)
            at_k = ((b * chunks + c) * g + group) * q * width
            for head in range(head_from, head_to):
                at_s = (head - head_from) * size
                if marks.size > 0 and c > 0 and c % SEGMENT == 0:
                    at = (((c // SEGMENT - 1) * (last.size // (h * p * n)) + b) * h + head) * size
                    marks[at : at + size] = S[at_s : at_s + size]
                at_x = place(strides_x, b, start, head)
                fetch(x, at_x, strides_x[1], length, p, x_rows)
                ask(x, place(strides_x, b, start + q, head), strides_x[1], q, p)
                at_dt, row = (b * h + head) * t + start, b * t + start
                chunk_decays(dt, at_dt, A[head], resets, row, length, steps, d, e, f)
                # W[i, j] = L[i, j] K[i, j] dt_j.
                for j in range(0, length, LANES):
                    kept, factors = zeros(dt), load(steps, j)
                    for i in range(j, length):
                        kept, at = drop_tiny(kept * d[i]), i * width + j
                        k = load(scores, at_k + at) * factors
                        if i < j + LANES:
                            kept, k = put_lane(kept, i - j, 1.0), below(k, i - j + 1)
                        store(W, at, k * kept)
                clear(Y, 0, length * wide)
                add_product(Y, 0, wide, c_rows, 0, deep, 1, S, at_s, wide, length, wide, n)
                for i in range(length):
                    scale(Y, i * wide, wide, e[i])
                for i in range(0, length, ROWS):
                    rows = min(ROWS, length - i)
                    add_product(
                        Y, i * wide, wide, W, i * width, width, 1, x_rows, 0, wide, rows, wide, i + rows
                    )
                skip = D[head] if D.size > 0 else D.dtype.type(0)
                for i in range(length):
                    out = ((b * t + start + i) * h + head) * p
                    for k in range(0, p, LANES):
                        value = load(Y, i * wide + k)
                        if D.size > 0:
                            value = value + load(x_rows, i * wide + k) * skip
                        store_some(y, out + k, p - k, value)
                take_states(length, p, n, e, f, steps, x_rows, room, b_rows, S, at_s)
        for head in range(head_from, head_to):
            send_state(S[(head - head_from) * size :], p, n, square, last, (b * h + head) * p * n)


@njit(nogil=True, cache=True)
def add_up(parts, length, square, out):
    """The sum of each of ``length`` vectors, sixteen at a time."""
    for i in range(0, length, LANES):
        turn(parts, i * LANES, LANES, square, 0, LANES)
        sums = load(square, 0)
        for k in range(1, LANES):
            sums = sums + load(square, k * LANES)
        store(out, i, sums)


@njit(nogil=True, cache=True)
def within_chunk(length, width, d, steps, K, at_k, M, W, grad_scores, at_g):
    """From M = g x^T make W = L K, add K's gradient to ``grad_scores``, make M the gradient of log L."""
    for j in range(0, length, LANES):
        kept = zeros(d)
        factors = load(steps, j)
        for i in range(j, length):
            inner = i < j + LANES
            kept = drop_tiny(kept * d[i])
            if inner:
                kept = put_lane(kept, i - j, 1.0)
            at = i * width + j
            k, m = load(K, at_k + at), load(M, at) * kept * factors
            if inner:
                k, m = below(k, i - j + 1), below(m, i - j + 1)
            store(W, at, k * kept)
            store(grad_scores, at_g + at, load(grad_scores, at_g + at) + m)
            m = m * k
            store(M, at, below(m, i - j) if inner else m)


@njit(nogil=True, cache=True)
def decay_gradients(length, width, M, parts, square, r, s, z, out):
    """Gradient of each log decay a_k of a chunk, as sums of like terms: no difference of large sums.

    a_k is part of every M[i, j] with j < k <= i, of what reaches outputs i >= k from before the chunk (r), of
    what steps j < k leave at its end (s), and of what the first state leaves there (z).
    """
    clear(parts, 0, length * LANES)
    for j in range(0, length, LANES):
        column = zeros(M)
        for k in range(length - 1, j, -1):
            column = column + load(M, k * width + j)
            # Only lanes before k count, now and for all smaller k.
            if k < j + LANES:
                column = below(column, k - j)
            store(parts, k * LANES, load(parts, k * LANES) + column)
    add_up(parts, length, square, out)
    later = r.dtype.type(0)
    for k in range(length - 1, -1, -1):
        later += r[k]
        out[k] += z + later
    earlier = s.dtype.type(0)
    for k in range(length):
        out[k] += earlier
        earlier += s[k]


@njit(nogil=True, cache=True)
def pull_readouts(T, n, length, width, e, c_flat, out, at, r):
    """From T = columns of S^T g: what it adds to C's gradient, and r_i = e_i T_i . C_i."""
    for i in range(0, length, LANES):
        factor, sums = load(e, i), zeros(T)
        for k in range(n):
            here = load(T, k * width + i)
            store(out, at + k * width + i, load(out, at + k * width + i) + here * factor)
            sums = sums + here * load(c_flat, k * width + i)
        store(r, i, sums * factor)


@njit(nogil=True, cache=True)
def by_states(length, wide, f, steps, x_rows, U, parts, square, s):
    """Make U_j = f_j G B_j of G B_j, and s_j = dt_j x_j . U_j, which is f_j dt_j (G^T x_j) . B_j."""
    for j in range(length):
        sums, kept = zeros(U), f[j]
        for c in range(j * wide, (j + 1) * wide, LANES):
            here = load(U, c) * kept
            store(U, c, here)
            sums = sums + here * load(x_rows, c)
        store(parts, j * LANES, sums)
    add_up(parts, length, square, s)
    for j in range(0, length, LANES):
        store(s, j, load(s, j) * load(steps, j))


@njit(nogil=True, cache=True)
def scale_columns(p, length, width, f, steps, x_flat):
    """Make x_j f_j dt_j of x_j, which lies in column j."""
    for i in range(0, length, LANES):
        kept = load(f, i) * load(steps, i)
        for k in range(i, p * width + i, width):
            store(x_flat, k, load(x_flat, k) * kept)


@njit(nogil=True, cache=True)
def backward(
    first, last_tile, block, chunk_from, chunk_to, x, strides_x, dt, A, B, strides_b, C, strides_c, D, state,
    marks, resets, scores, sizes, grad_y, strides_y, grad_last, pulled, shared, grad_x, strides_gx, grad_dt,
    grad_rate, grad_skip, grad_state,
):  # fmt: skip
    """Tiles [first, last_tile): ``block`` heads of one group of one batch row, over one segment of chunks.

    Forwards for the states that chunks begin with, then backwards. ``pulled`` holds the gradients of the
    states between segments, n by p. What heads share (the gradients of B, C and K of each chunk, by columns)
    each tile adds up for its own heads, in their order, in its part of ``shared``.
    """
    t, h, p, g, n, q = sizes
    per = h // g
    width, wide, deep = padded(q), padded(p), padded(n)
    chunks, blocks, size = (t + q - 1) // q, (per + block - 1) // block, n * wide
    span, part = chunk_to - chunk_from, (2 * n + q) * width
    batch = dt.size // (t * h)
    steps, d, e, f = scratch(width, dt), scratch(width, dt), scratch(width, dt), scratch(width, dt)
    r, s, rates = scratch(width, dt), scratch(width, dt), scratch(width, dt)
    x_rows, y_rows, U = scratch(width * wide, dt), scratch(width * wide, dt), scratch(width * wide, dt)
    x_flat, y_flat = scratch(width * wide, dt), scratch(width * wide, dt)
    rows_n, b_flat, c_flat = scratch(width * deep, dt), scratch(width * deep, dt), scratch(width * deep, dt)
    W, M, parts = scratch(width * width, dt), scratch(width * width, dt), scratch(width * LANES, dt)
    T, square = scratch(deep * width, dt), scratch(deep * wide, dt)
    begins = scratch(span * block * size + deep * wide, dt)
    for tile in range(first, last_tile):
        b, group = tile // (blocks * g), tile // blocks % g
        head_from = group * per + tile % blocks * block
        head_to = min(head_from + block, (group + 1) * per)
        for c in range(chunk_from, chunk_to):
            start = c * q
            if c > chunk_from:
                at_b = place(strides_b, b, start - q, group)
                fetch(B, at_b, strides_b[1], q, n, rows_n)
            for head in range(head_from, head_to):
                here = ((c - chunk_from) * block + head - head_from) * size
                if c > chunk_from:
                    begins[here : here + size] = begins[here - block * size : here - (block - 1) * size]
                    at_x = place(strides_x, b, start - q, head)
                    fetch(x, at_x, strides_x[1], q, p, x_rows)
                    ask(x, place(strides_x, b, start, head), strides_x[1], q, p)
                    at_dt, row = (b * h + head) * t + start - q, b * t + start - q
                    chunk_decays(dt, at_dt, A[head], resets, row, q, steps, d, e, f)
                    take_states(q, p, n, e, f, steps, x_rows, U, rows_n, begins, here)
                elif c > 0:
                    at = (((c // SEGMENT - 1) * batch + b) * h + head) * size
                    begins[here : here + size] = marks[at : at + size]
                elif state.size > 0:
                    fetch_state(state, (b * h + head) * p * n, p, n, square, begins[here:])
                else:
                    clear(begins, here, size)
        if chunk_to == chunks:
            for head in range(head_from, head_to):
                at = (b * h + head) * p * n
                fetch_state(grad_last, at, p, n, square, pulled[(b * h + head) * deep * wide :])
        for c in range(chunk_to - 1, chunk_from - 1, -1):
            start = c * q
            length = min(q, t - start)
            columns = padded(length)
            at_b = place(strides_b, b, start, group)
            at_c = place(strides_c, b, start, group)
            fetch(B, at_b, strides_b[1], length, n, rows_n)
            turn_rows(rows_n, length, deep, b_flat, width)
            fetch(C, at_c, strides_c[1], length, n, rows_n)
            turn_rows(rows_n, length, deep, c_flat, width)
            at_k = ((b * chunks + c) * g + group) * q * width
            to_c = (tile * span + c - chunk_from) * part
            to_b, to_k = to_c + n * width, to_c + 2 * n * width
            clear(shared, to_c, part)
            for head in range(head_from, head_to):
                at_s = ((c - chunk_from) * block + head - head_from) * size
                at_g = (b * h + head) * deep * wide
                at_x = place(strides_x, b, start, head)
                at_y = place(strides_y, b, start, head)
                at_dt, row = (b * h + head) * t + start, b * t + start
                fetch(x, at_x, strides_x[1], length, p, x_rows)
                turn_rows(x_rows, length, wide, x_flat, width)
                ask(x, place(strides_x, b, start - q, head), strides_x[1], q, p)
                fetch(grad_y, at_y, strides_y[1], length, p, y_rows)
                turn_rows(y_rows, length, wide, y_flat, width)
                ask(grad_y, place(strides_y, b, start - q, head), strides_y[1], q, p)
                chunk_decays(dt, at_dt, A[head], resets, row, length, steps, d, e, f)

                clear(M, 0, length * width)
                for i in range(0, length, ROWS):
                    rows = min(ROWS, length - i)
                    add_product(
                        M, i * width, width, y_rows, i * wide, wide, 1, x_flat, 0, width, rows,
                        padded(i + rows), p,
                    )  # fmt: skip
                within_chunk(length, width, d, steps, scores, at_k, M, W, shared, to_k)

                # To u = dt x: from the state at the end, then from the outputs within the chunk.
                clear(U, 0, length * wide)
                add_product(U, 0, wide, b_flat, 0, 1, width, pulled, at_g, wide, length, wide, n)
                by_states(length, wide, f, steps, x_rows, U, parts, square, s)
                for j in range(0, length, ROWS):
                    rows, at = min(ROWS, length - j), j * width + j
                    add_product(
                        U, j * wide, wide, W, at, 1, width, y_rows, j * wide, wide, rows, wide, length - j
                    )

                # To C from the state at the beginning, to B from the one at the end.
                clear(T, 0, n * width)
                add_product(T, 0, width, begins, at_s, wide, 1, y_flat, 0, width, n, columns, p)
                pull_readouts(T, n, length, width, e, c_flat, shared, to_c, r)
                scale_columns(p, length, width, f, steps, x_flat)
                add_product(shared, to_b, width, pulled, at_g, wide, 1, x_flat, 0, width, n, columns, p)

                # The state's gradient moves to the beginning of the chunk.
                survival = zeros(dt)
                for k in range(0, size, LANES):
                    ahead = load(pulled, at_g + k) * e[length - 1]
                    survival = survival + load(begins, at_s + k) * ahead
                    store(pulled, at_g + k, ahead)
                decay_gradients(length, width, M, parts, square, r, s, total(survival), rates)

                skip = D[head] if D.size > 0 else D.dtype.type(0)
                by_skip, grad_a = zeros(dt), dt.dtype.type(0)
                for j in range(length):
                    out = place(strides_gx, b, start + j, head)
                    by_step, step, left = zeros(dt), steps[j], e[j]
                    for k in range(0, wide, LANES):
                        at = j * wide + k
                        xs, gs, us = load(x_rows, at), load(y_rows, at), load(U, at)
                        by_step = by_step + xs * us
                        by_skip = by_skip + xs * gs
                        store_some(grad_x, out + k, p - k, us * step + gs * skip)
                        store(y_rows, at, gs * left)
                    store(parts, j * LANES, by_step)
                add_up(parts, length, square, r)
                for j in range(length):
                    grad_dt[at_dt + j] = r[j] + A[head] * rates[j]
                    grad_a += steps[j] * rates[j]
                grad_rate[(b * chunks + c) * h + head] = grad_a
                grad_skip[(b * chunks + c) * h + head] = total(by_skip)
                add_product(pulled, at_g, wide, c_flat, 0, width, 1, y_rows, 0, wide, n, wide, length)
        if chunk_from == 0:
            for head in range(head_from, head_to):
                at = (b * h + head) * p * n
                send_state(pulled[(b * h + head) * deep * wide :], p, n, square, grad_state, at)


@njit(nogil=True, cache=True)
def finish(
    first, last_tile, block, chunk_from, chunk_to, dt, B, strides_b, C, strides_c, sizes, shared, grad_b,
    strides_gb, grad_c, strides_gc,
):  # fmt: skip
    """Tiles [first, last_tile): grad_B and grad_C of a chunk of a group of a batch row, from all heads."""
    t, h, _, g, n, q = sizes
    width, deep = padded(q), padded(n)
    blocks = (h // g + block - 1) // block
    span, part = chunk_to - chunk_from, (2 * n + q) * width
    sums, rows = scratch((2 * deep + q) * width, dt), scratch(width * deep, dt)
    out = scratch(width * deep, dt)
    at_b, at_k = deep * width, 2 * deep * width
    for tile in range(first, last_tile):
        b, c, group = tile // (span * g), tile // g % span, tile % g
        start = (chunk_from + c) * q
        length = min(q, t - start)
        clear(sums, 0, (2 * deep + q) * width)
        for other in range(blocks):
            at = (((b * g + group) * blocks + other) * span + c) * part
            for to, count in ((0, n * width), (at_b, n * width), (at_k, q * width)):
                for i in range(0, count, LANES):
                    store(sums, to + i, load(sums, to + i) + load(shared, at + i))
                at += count
        fetch(B, place(strides_b, b, start, group), strides_b[1], length, n, rows)
        turn_rows(sums, n, width, out, deep)
        for i in range(0, length, ROWS):
            count = min(ROWS, length - i)
            add_product(
                out, i * deep, deep, sums, at_k + i * width, width, 1, rows, 0, deep, count, deep, i + count
            )
        send(out, length, n, grad_c, place(strides_gc, b, start, group), strides_gc[1])
        fetch(C, place(strides_c, b, start, group), strides_c[1], length, n, rows)
        turn_rows(sums[at_b:], n, width, out, deep)
        for j in range(0, length, ROWS):
            count, at = min(ROWS, length - j), at_k + j * width + j
            add_product(
                out, j * deep, deep, sums, at, 1, width, rows, j * deep, deep, count, deep, length - j
            )
        send(out, length, n, grad_b, place(strides_gb, b, start, group), strides_gb[1])


@njit(nogil=True, cache=True)
def send(source, length, size, x, at, pitch):
    """The way back of ``fetch``."""
    width = padded(size)
    for i in range(length):
        for c in range(0, size, LANES):
            store_some(x, at + i * pitch + c, size - c, load(source, i * width + c))
