"""Kernels of SSD in Triton: states between chunks, outputs, and gradients, all as products of small tiles.

Forward: ``states`` walks over the chunks of one head and hands down the state before each of them, and
``outputs`` then treats all chunks at once. Backward: ``states`` once more, and backwards on the gradient of
the state; ``grad_inputs`` gives the gradients of one chunk to x, dt, A and D, head by head, and
``grad_directions`` those to B and C, group by group.

Step i reads what step j wrote. A decay is exp of a difference of two running sums of the log decays dt A of
one chunk, and what is masked is masked before exp. The sums are taken in float64 and split in two parts of
the working precision, so that differences keep all their digits after a strong decay.

``RAW`` is the type in which two tensors that are stored meet in a product, ``DOT`` where one was computed,
``ACC`` the type of sums, states and decays. Every sum has a fixed order: no atomics.
"""

import torch
import triton
import triton.language as tl


def types(dtype, interpreted):
    """``ACC``, ``RAW``, ``DOT`` and the precision of products for a dtype of storage.

    A computed number may leave the range of float16, so there it meets others as TF32, which has as many
    digits. The interpreter has no arithmetic in bfloat16. TF32 in three parts has nearly float32's digits.
    """
    if dtype == torch.float64:
        return {"ACC": tl.float64, "RAW": tl.float64, "DOT": tl.float64, "PRECISION": "ieee"}
    raw = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[dtype]
    if interpreted:
        raw = tl.float32
    dot = tl.bfloat16 if raw == tl.bfloat16 else tl.float32
    return {
        "ACC": tl.float32,
        "RAW": raw,
        "DOT": dot,
        "PRECISION": "tf32x3" if dtype == torch.float32 else "tf32",
    }


@triton.jit
def _steps(
    dt, stride, resets, A, head, first, T, BT: tl.constexpr, HAS_RESETS: tl.constexpr, ACC: tl.constexpr
):
    """A chunk's step sizes, their running log decay (float64), and the number of resets up to each step."""
    i = tl.arange(0, BT)
    inside = first + i < T
    size = tl.load(dt + i * stride, mask=inside, other=0.0).to(ACC)
    rate = tl.load(A + head).to(tl.float64)
    decay = tl.cumsum(size.to(tl.float64) * rate, 0)
    if HAS_RESETS:
        segment = tl.cumsum(tl.load(resets + i, mask=inside, other=0).to(tl.int32), 0)
    else:
        segment = tl.zeros([BT], tl.int32)
    return size, decay, segment


@triton.jit
def _at_end(x, BT: tl.constexpr):
    """The last entry of a vector."""
    return tl.sum(tl.where(tl.arange(0, BT) == BT - 1, x, tl.zeros_like(x)), 0)


@triton.jit
def _to_end(decay, segment, BT: tl.constexpr, ACC: tl.constexpr):
    """What is left at the end of the chunk of what each step wrote."""
    exponent = (_at_end(decay, BT) - decay).to(ACC)
    return tl.exp(tl.where(segment == _at_end(segment, BT), exponent, float("-inf")))


@triton.jit
def _from_start(decay, segment, ACC: tl.constexpr):
    """What is left at each step of the state before the chunk."""
    return tl.exp(tl.where(segment == 0, decay.to(ACC), float("-inf")))


@triton.jit
def _between(decay, segment, BT: tl.constexpr, BY_WRITER: tl.constexpr, ACC: tl.constexpr):
    """What is left at step i of what step j wrote, zero where j is later or reset away.

    Rows are i and columns j, or the other way round ``BY_WRITER``.
    """
    i = tl.arange(0, BT)
    high = decay.to(ACC)
    low = (decay - high.to(tl.float64)).to(ACC)
    exponent = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
    seen = i[:, None] >= i[None, :]
    if BY_WRITER:
        exponent = -exponent
        seen = i[:, None] <= i[None, :]
    seen = seen & (segment[:, None] == segment[None, :])
    return tl.exp(tl.where(seen, exponent, float("-inf")))


@triton.jit
def _tile(x, row_stride, rows, columns, inside, N):
    """A tile whose columns lie side by side; zero outside."""
    mask = inside[:, None] & (columns < N)[None, :]
    return tl.load(x + rows[:, None] * row_stride + columns[None, :], mask=mask, other=0.0)


@triton.jit
def _products(
    left,
    right,
    left_stride,
    right_stride,
    inside,
    N,
    BT: tl.constexpr,
    BN: tl.constexpr,
    ACC: tl.constexpr,
    RAW: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Inner products of all steps of one chunk (rows) with all steps (columns), over N numbers a step."""
    i = tl.arange(0, BT)
    total = tl.zeros([BT, BT], ACC)
    for n0 in range(0, N, BN):
        n = n0 + tl.arange(0, BN)
        rows = _tile(left, left_stride, i, n, inside, N).to(RAW)
        columns = _tile(right, right_stride, i, n, inside, N).to(RAW)
        total = tl.dot(rows, tl.trans(columns), total, input_precision=PRECISION, out_dtype=ACC)
    return total


@triton.jit(do_not_specialize=["T"])
def states(
    x,
    dt,
    A,
    B,
    resets,
    first_state,
    before,
    last_state,
    stride_xb,
    stride_xt,
    stride_xh,
    stride_db,
    stride_dt,
    stride_dh,
    stride_bb,
    stride_bt,
    stride_bg,
    T,
    H,
    P,
    N,
    R,
    BT: tl.constexpr,
    BP: tl.constexpr,
    BN: tl.constexpr,
    REVERSE: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of a head's state through all chunks: ``before`` gets what each chunk starts from.

    Reversed, x is the gradient of y, B is C, the first state the gradient of the last one, and ``before``
    gets the gradient of the state after each chunk.
    """
    row = tl.program_id(0).to(tl.int64)
    b, head = row // H, row % H
    p = tl.program_id(1) * BP + tl.arange(0, BP)
    n = tl.program_id(2) * BN + tl.arange(0, BN)
    i = tl.arange(0, BT)
    cell = p[:, None] * N + n[None, :]
    held = (p < P)[:, None] & (n < N)[None, :]
    x += b * stride_xb + head * stride_xh
    dt += b * stride_db + head * stride_dh
    B += b * stride_bb + (head // R) * stride_bg
    resets += b * T
    chunks = tl.cdiv(T, BT)
    before += row * chunks * P * N
    state = tl.load(first_state + row * P * N + cell, mask=held, other=0.0).to(ACC)
    start = row * 0  # an index of 64 bits: that of the last chunk times a stride may need them
    for k in range(chunks):
        chunk = start + k
        if REVERSE:
            chunk = start + (chunks - 1 - k)
        first = chunk * BT
        tl.store(before + chunk * P * N + cell, state, mask=held)
        inside = first + i < T
        size, decay, segment = _steps(
            dt + first * stride_dt, stride_dt, resets + first, A, head, first, T, BT, HAS_RESETS, ACC
        )
        from_start = _from_start(decay, segment, ACC)
        weight = from_start
        if not REVERSE:
            weight = _to_end(decay, segment, BT, ACC) * size
        inputs = _tile(x + first * stride_xt, stride_xt, i, p, inside, P).to(ACC) * weight[:, None]
        directions = _tile(B + first * stride_bt, stride_bt, i, n, inside, N).to(DOT)
        state *= _at_end(from_start, BT)
        state = tl.dot(tl.trans(inputs.to(DOT)), directions, state, input_precision=PRECISION, out_dtype=ACC)
    tl.store(last_state + row * P * N + cell, state, mask=held)


@triton.jit(do_not_specialize=["T", "HEADS"])
def outputs(
    x,
    dt,
    A,
    B,
    C,
    D,
    resets,
    before,
    y,
    stride_xb,
    stride_xt,
    stride_xh,
    stride_db,
    stride_dt,
    stride_dh,
    stride_bb,
    stride_bt,
    stride_bg,
    stride_cb,
    stride_ct,
    stride_cg,
    T,
    H,
    P,
    N,
    R,
    HEADS,
    BT: tl.constexpr,
    BP: tl.constexpr,
    BN: tl.constexpr,
    HAS_D: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
    RAW: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Outputs of one chunk for up to ``HEADS`` heads of one group, which share the products of C and B."""
    chunks = tl.cdiv(T, BT)
    pair = tl.program_id(0).to(tl.int64)
    b, chunk = pair // chunks, pair % chunks
    parts = tl.cdiv(R, HEADS)
    group, part = tl.program_id(1) // parts, tl.program_id(1) % parts
    p = tl.program_id(2) * BP + tl.arange(0, BP)
    i = tl.arange(0, BT)
    first = chunk * BT
    inside = first + i < T
    x += b * stride_xb + first * stride_xt
    dt += b * stride_db + first * stride_dt
    B += b * stride_bb + first * stride_bt + group.to(tl.int64) * stride_bg
    C += b * stride_cb + first * stride_ct + group.to(tl.int64) * stride_cg
    y += (b * T + first) * H * P
    resets += b * T + first
    scores = _products(C, B, stride_ct, stride_bt, inside, N, BT, BN, ACC, RAW, PRECISION)
    for k in range(part * HEADS, tl.minimum(part * HEADS + HEADS, R)):
        head = (group * R + k).to(tl.int64)
        size, decay, segment = _steps(
            dt + head * stride_dh, stride_dt, resets, A, head, first, T, BT, HAS_RESETS, ACC
        )
        state = before + ((b * H + head) * chunks + chunk) * P * N
        total = tl.zeros([BT, BP], ACC)
        for n0 in range(0, N, BN):
            n = n0 + tl.arange(0, BN)
            read = _tile(C, stride_ct, i, n, inside, N).to(DOT)
            held = _tile(state, N, p, n, p < P, N).to(DOT)
            total = tl.dot(read, tl.trans(held), total, input_precision=PRECISION, out_dtype=ACC)
        total *= _from_start(decay, segment, ACC)[:, None]
        weights = scores * _between(decay, segment, BT, False, ACC) * size[None, :]
        given = _tile(x + head * stride_xh, stride_xt, i, p, inside, P)
        total = tl.dot(weights.to(DOT), given.to(DOT), total, input_precision=PRECISION, out_dtype=ACC)
        if HAS_D:
            total += tl.load(D + head).to(ACC) * given.to(ACC)
        tl.store(
            y + i[:, None] * H * P + head * P + p[None, :], total, mask=inside[:, None] & (p < P)[None, :]
        )


@triton.jit(do_not_specialize=["T", "HEADS"])
def grad_inputs(
    grad_y,
    x,
    dt,
    A,
    B,
    C,
    D,
    resets,
    before,
    after,
    grad_x,
    grad_dt,
    grad_rate,
    grad_skip,
    stride_gb,
    stride_gt,
    stride_yb,
    stride_yt,
    stride_yh,
    stride_xb,
    stride_xt,
    stride_xh,
    stride_db,
    stride_dt,
    stride_dh,
    stride_bb,
    stride_bt,
    stride_bg,
    stride_cb,
    stride_ct,
    stride_cg,
    T,
    H,
    P,
    N,
    R,
    HEADS,
    BT: tl.constexpr,
    BP: tl.constexpr,
    BN: tl.constexpr,
    HAS_D: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
    RAW: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients to x and dt in one chunk, for up to ``HEADS`` heads of a group, and its parts of A's and D's.

    ``before`` holds the state at the start of each chunk, ``after`` the gradient of the one at its end.
    """
    chunks = tl.cdiv(T, BT)
    pair = tl.program_id(0).to(tl.int64)
    b, chunk = pair // chunks, pair % chunks
    parts = tl.cdiv(R, HEADS)
    group, part = tl.program_id(1) // parts, tl.program_id(1) % parts
    i = tl.arange(0, BT)
    first = chunk * BT
    inside = first + i < T
    grad_y += b * stride_yb + first * stride_yt
    x += b * stride_xb + first * stride_xt
    dt += b * stride_db + first * stride_dt
    B += b * stride_bb + first * stride_bt + group.to(tl.int64) * stride_bg
    C += b * stride_cb + first * stride_ct + group.to(tl.int64) * stride_cg
    grad_x += b * stride_gb + first * stride_gt
    grad_dt += (b * T + first) * H
    resets += b * T + first
    # Squares of this kernel have the writing step j in rows and the reading step i in columns.
    scores = _products(B, C, stride_bt, stride_ct, inside, N, BT, BN, ACC, RAW, PRECISION)
    later = (i[:, None] > i[None, :]).to(DOT)
    for k in range(part * HEADS, tl.minimum(part * HEADS + HEADS, R)):
        head = (group * R + k).to(tl.int64)
        size, decay, segment = _steps(
            dt + head * stride_dh, stride_dt, resets, A, head, first, T, BT, HAS_RESETS, ACC
        )
        rows_y, rows_x = grad_y + head * stride_yh, x + head * stride_xh
        cell = ((b * H + head) * chunks + chunk) * P * N

        # The gradient of each pair's weight, x_j . dy_i, times what the weight is made of but for dt_j.
        weights = scores * _between(decay, segment, BT, True, ACC)
        pairs = _products(rows_x, rows_y, stride_xt, stride_yt, inside, P, BT, BP, ACC, RAW, PRECISION)
        pairs *= weights
        to_size = tl.sum(pairs, 1)
        # The decay of step k is in the weight of each pair with j < k <= i. Those are summed as they are:
        # rows less columns, summed from the end, would leave roundings of all pairs where the sum is nothing.
        pairs = (pairs * size[:, None]).to(DOT)
        across = tl.dot(later, pairs, input_precision=PRECISION, out_dtype=ACC)
        to_step = tl.sum(tl.where(i[:, None] <= i[None, :], across, 0.0), 1)
        weights = (weights * size[:, None]).to(DOT)

        to_end = _to_end(decay, segment, BT, ACC)
        from_start = _from_start(decay, segment, ACC)
        written = tl.zeros([BT], ACC)
        recalled = tl.zeros([BT], ACC)
        passed = tl.zeros([BP], ACC)
        skipped = tl.zeros([BP], ACC)
        for p0 in range(0, P, BP):
            p = p0 + tl.arange(0, BP)
            kept = tl.zeros([BT, BP], ACC)
            seen = tl.zeros([BT, BP], ACC)
            for n0 in range(0, N, BN):
                n = n0 + tl.arange(0, BN)
                old = _tile(before + cell, N, p, n, p < P, N)
                new = _tile(after + cell, N, p, n, p < P, N)
                passed += tl.sum(old.to(ACC) * new.to(ACC), 1)
                write = _tile(B, stride_bt, i, n, inside, N).to(DOT)
                kept = tl.dot(write, tl.trans(new.to(DOT)), kept, input_precision=PRECISION, out_dtype=ACC)
                read = _tile(C, stride_ct, i, n, inside, N).to(DOT)
                seen = tl.dot(read, tl.trans(old.to(DOT)), seen, input_precision=PRECISION, out_dtype=ACC)
            slope = _tile(rows_y, stride_yt, i, p, inside, P)
            given = _tile(rows_x, stride_xt, i, p, inside, P).to(ACC)
            kept *= to_end[:, None]
            written += tl.sum(given * kept, 1)
            recalled += tl.sum(slope.to(ACC) * seen, 1)
            total = tl.dot(
                weights, slope.to(DOT), kept * size[:, None], input_precision=PRECISION, out_dtype=ACC
            )
            if HAS_D:
                total += tl.load(D + head).to(ACC) * slope.to(ACC)
                skipped += tl.sum(slope.to(ACC) * given, 0)
            tl.store(
                grad_x + i[:, None] * stride_gt + head * P + p[None, :],
                total,
                mask=inside[:, None] & (p < P)[None, :],
            )

        # It is also in what steps from k on read of the state before, in what steps before k hand on, and in
        # what passes of the state.
        to_step += tl.cumsum(recalled * from_start, 0, reverse=True)
        handed = written * size
        to_step += tl.cumsum(handed, 0) - handed
        to_step += tl.sum(passed, 0) * _at_end(from_start, BT)
        to_size += written + to_step * tl.load(A + head).to(ACC)
        tl.store(grad_dt + i * H + head, to_size, mask=inside)
        # Summed as a matrix of one row: for Blackwell, Triton 3.7.1 cannot compile the sum of a vector that
        # came of sums over the rows of a product.
        rate = tl.sum((to_step * size)[None, :], 1)
        tl.store(grad_rate + pair * H + head + tl.arange(0, 1), rate)
        if HAS_D:
            tl.store(grad_skip + pair * H + head, tl.sum(skipped, 0))


@triton.jit(do_not_specialize=["BATCH", "T", "HEADS"])
def grad_directions(
    grad_y,
    x,
    dt,
    A,
    B,
    C,
    resets,
    before,
    after,
    grad_b,
    grad_c,
    stride_yb,
    stride_yt,
    stride_yh,
    stride_xb,
    stride_xt,
    stride_xh,
    stride_db,
    stride_dt,
    stride_dh,
    stride_bb,
    stride_bt,
    stride_bg,
    stride_cb,
    stride_ct,
    stride_cg,
    BATCH,
    T,
    H,
    P,
    N,
    R,
    G,
    HEADS,
    BT: tl.constexpr,
    BP: tl.constexpr,
    BN: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
    RAW: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of the gradients to B and C in one chunk, in parts that each sum up to ``HEADS`` heads."""
    chunks = tl.cdiv(T, BT)
    pair = tl.program_id(0).to(tl.int64)
    b, chunk = pair // chunks, pair % chunks
    parts = tl.cdiv(R, HEADS)
    group, part = tl.program_id(1) // parts, tl.program_id(1) % parts
    n = tl.program_id(2) * BN + tl.arange(0, BN)
    i = tl.arange(0, BT)
    first = chunk * BT
    inside = first + i < T
    grad_y += b * stride_yb + first * stride_yt
    x += b * stride_xb + first * stride_xt
    dt += b * stride_db + first * stride_dt
    B += b * stride_bb + first * stride_bt + group.to(tl.int64) * stride_bg
    C += b * stride_cb + first * stride_ct + group.to(tl.int64) * stride_cg
    resets += b * T + first
    to_scores = tl.zeros([BT, BT], ACC)
    to_b = tl.zeros([BT, BN], ACC)
    to_c = tl.zeros([BT, BN], ACC)
    for k in range(part * HEADS, tl.minimum(part * HEADS + HEADS, R)):
        head = (group * R + k).to(tl.int64)
        size, decay, segment = _steps(
            dt + head * stride_dh, stride_dt, resets, A, head, first, T, BT, HAS_RESETS, ACC
        )
        kept = _to_end(decay, segment, BT, ACC) * size
        from_start = _from_start(decay, segment, ACC)
        cell = ((b * H + head) * chunks + chunk) * P * N
        pairs = tl.zeros([BT, BT], ACC)
        for p0 in range(0, P, BP):
            p = p0 + tl.arange(0, BP)
            slope = _tile(grad_y + head * stride_yh, stride_yt, i, p, inside, P)
            given = _tile(x + head * stride_xh, stride_xt, i, p, inside, P)
            pairs = tl.dot(
                slope.to(RAW), tl.trans(given.to(RAW)), pairs, input_precision=PRECISION, out_dtype=ACC
            )
            old = _tile(before + cell, N, p, n, p < P, N).to(DOT)
            new = _tile(after + cell, N, p, n, p < P, N).to(DOT)
            recalled = (slope.to(ACC) * from_start[:, None]).to(DOT)
            to_c = tl.dot(recalled, old, to_c, input_precision=PRECISION, out_dtype=ACC)
            written = (given.to(ACC) * kept[:, None]).to(DOT)
            to_b = tl.dot(written, new, to_b, input_precision=PRECISION, out_dtype=ACC)
        to_scores += pairs * _between(decay, segment, BT, False, ACC) * size[None, :]
    to_scores = to_scores.to(DOT)
    write = _tile(B, stride_bt, i, n, inside, N).to(DOT)
    to_c = tl.dot(to_scores, write, to_c, input_precision=PRECISION, out_dtype=ACC)
    read = _tile(C, stride_ct, i, n, inside, N).to(DOT)
    to_b = tl.dot(tl.trans(to_scores), read, to_b, input_precision=PRECISION, out_dtype=ACC)
    row = ((part.to(tl.int64) * BATCH + b) * T + first) * G + group
    cell = row * N + i[:, None] * G * N + n[None, :]
    mask = inside[:, None] & (n < N)[None, :]
    tl.store(grad_b + cell, to_b, mask=mask)
    tl.store(grad_c + cell, to_c, mask=mask)
