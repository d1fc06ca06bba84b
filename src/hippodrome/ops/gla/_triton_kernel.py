"""Kernels of gated linear attention in Triton: states between chunks, outputs, and gradients.

A chunk is STEPS tokens, the least side of a product. Forward: ``states`` walks over the chunks of one head
and hands down the state before each of them, and ``outputs`` then treats all chunks at once. Backward:
``states`` once more, and backwards on the gradient of the state; ``outputs`` the other way round gives the
gradient of v, and ``grad_keys`` those of q, k and the decays.

Every decay is exp of a sum of its own terms, all at most zero and minus infinity at a reset: never of a
difference, so that nothing overflows or cancels, however strong the decays. The decays between the pairs of
a chunk are sums of their own for each pair and channel, a cube. Every sum has a fixed order: no atomics.
"""

import triton
import triton.language as tl

STEPS = 16


@triton.jit
def _tile(x, stride, rows, columns, low, high, size, ACC: tl.constexpr):
    """Rows ``low`` to ``high`` of a matrix whose columns lie side by side, in ACC; zero outside."""
    mask = ((rows >= low) & (rows < high))[:, None] & (columns < size)[None, :]
    return tl.load(x + rows[:, None] * stride + columns[None, :], mask=mask, other=0.0).to(ACC)


@triton.jit
def _logs(
    log_decay,
    stride,
    resets,
    rows,
    columns,
    high,
    size,
    STEPS: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Log decays of some rows of a chunk; rows past its end keep everything, a reset nothing."""
    high = tl.minimum(high, STEPS)
    logs = _tile(log_decay, stride, rows, columns, 0, high, size, ACC)
    if HAS_RESETS:
        cut = tl.load(resets + rows, mask=rows < high, other=0) != 0
        logs = tl.where(cut[:, None], float("-inf"), logs)
    return logs


@triton.jit
def states(
    x,
    w,
    log_decay,
    resets,
    first,
    before,
    last,
    stride_xb,
    stride_xt,
    stride_xh,
    stride_wb,
    stride_wt,
    stride_wh,
    stride_gb,
    stride_gt,
    stride_gh,
    T,
    H,
    K,
    V,
    STEPS: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    REVERSE: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """What each chunk starts from, and what the last one leaves: S' = e_15 S + sum_j (f_j x_j) w_j^T.

    In reverse the gradient of the state, chunk after chunk from the last: x are queries, w gradients of y,
    and what step i takes of the state before it, e_i, stands for f_i.
    """
    b, h = (tl.program_id(0) // H).to(tl.int64), (tl.program_id(0) % H).to(tl.int64)
    i = tl.arange(0, STEPS)
    k, v = tl.program_id(1) * BK + tl.arange(0, BK), tl.program_id(2) * BV + tl.arange(0, BV)
    x += b * stride_xb + h * stride_xh
    w += b * stride_wb + h * stride_wh
    log_decay += b * stride_gb + h * stride_gh
    resets += b * T
    chunks = tl.cdiv(T, STEPS)
    square = k[:, None] * V + v[None, :]
    inside = (k < K)[:, None] & (v < V)[None, :]
    head = (b * H + h) * K * V
    state = tl.load(first + head + square, mask=inside, other=0.0).to(ACC)
    before += head * chunks
    # A chunk's first step, in 64 bits: offsets from the start of a tensor may need them.
    start = b * 0
    if REVERSE:
        start += (chunks - 1) * STEPS
    for _ in range(0, chunks):
        left = (T - start).to(tl.int32)
        tl.store(before + start // STEPS * K * V + square, state, mask=inside)
        rows = _tile(x + start * stride_xt, stride_xt, i, k, 0, left, K, ACC)
        values = _tile(w + start * stride_wt, stride_wt, i, v, 0, left, V, ACC)
        decays, marks = log_decay + start * stride_gt, resets + start
        logs = _logs(decays, stride_gt, marks, i, k, left, K, STEPS, HAS_RESETS, ACC)
        if REVERSE:
            rows *= tl.exp(tl.cumsum(logs, 0))
        else:
            later = _logs(decays, stride_gt, marks, i + 1, k, left, K, STEPS, HAS_RESETS, ACC)
            rows *= tl.exp(tl.cumsum(later, 0, reverse=True))
        state *= tl.exp(tl.sum(logs, 0))[:, None]
        state += tl.dot(tl.trans(rows), values, input_precision=PRECISION, out_dtype=ACC)
        if REVERSE:
            start -= STEPS
        else:
            start += STEPS
    tl.store(last + head + square, state, mask=inside)


@triton.jit
def _pairs(logs, STEPS: tl.constexpr):
    """What is left at step i (axis 0) of what j (axis 1) wrote, for each channel; zero where j is later."""
    i, j = tl.arange(0, STEPS)[:, None, None], tl.arange(0, STEPS)[None, :, None]
    sums = tl.cumsum(tl.where(i > j, logs[:, None, :], 0.0), 0)
    return tl.exp(tl.where(i >= j, sums, float("-inf")))


@triton.jit
def outputs(
    q,
    k,
    w,
    log_decay,
    resets,
    states,
    y,
    stride_qb,
    stride_qt,
    stride_qh,
    stride_kb,
    stride_kt,
    stride_kh,
    stride_wb,
    stride_wt,
    stride_wh,
    stride_gb,
    stride_gt,
    stride_gh,
    T,
    H,
    K,
    V,
    STEPS: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    REVERSE: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Outputs of one chunk of one head, y_i = (e_i q_i) S + sum_{j <= i} A[i, j] w_j, w being v.

    In reverse the gradient of v: w is that of y, S that of the state after the chunk, and v_j gets
    (f_j k_j) S + sum_{i >= j} A[i, j] w_i.
    """
    chunks = tl.cdiv(T, STEPS)
    b, chunk = (tl.program_id(0) // chunks).to(tl.int64), (tl.program_id(0) % chunks).to(tl.int64)
    h = tl.program_id(1).to(tl.int64)
    start = chunk * STEPS
    left = (T - start).to(tl.int32)
    i, v = tl.arange(0, STEPS), tl.program_id(2) * BV + tl.arange(0, BV)
    q += b * stride_qb + start * stride_qt + h * stride_qh
    k += b * stride_kb + start * stride_kt + h * stride_kh
    w += b * stride_wb + start * stride_wt + h * stride_wh
    log_decay += b * stride_gb + start * stride_gt + h * stride_gh
    resets += b * T + start
    states += ((b * H + h) * chunks + chunk) * K * V
    scores = tl.zeros([STEPS, STEPS], ACC)
    total = tl.zeros([STEPS, BV], ACC)
    for k0 in range(0, K, BK):
        c = k0 + tl.arange(0, BK)
        queries = _tile(q, stride_qt, i, c, 0, left, K, ACC)
        keys = _tile(k, stride_kt, i, c, 0, left, K, ACC)
        logs = _logs(log_decay, stride_gt, resets, i, c, left, K, STEPS, HAS_RESETS, ACC)
        scores += tl.sum(queries[:, None, :] * _pairs(logs, STEPS) * keys[None, :, :], 2)
        if REVERSE:
            later = _logs(log_decay, stride_gt, resets, i + 1, c, left, K, STEPS, HAS_RESETS, ACC)
            rows = keys * tl.exp(tl.cumsum(later, 0, reverse=True))
        else:
            rows = queries * tl.exp(tl.cumsum(logs, 0))
        state = _tile(states, V, c, v, 0, K, V, ACC)
        total = tl.dot(rows, state, total, input_precision=PRECISION, out_dtype=ACC)
    values = _tile(w, stride_wt, i, v, 0, left, V, ACC)
    if REVERSE:
        scores = tl.trans(scores)
    total = tl.dot(scores, values, total, input_precision=PRECISION, out_dtype=ACC)
    y += ((b * T + start) * H + h) * V
    mask = (i < left)[:, None] & (v < V)[None, :]
    tl.store(y + i[:, None] * H * V + v[None, :], total.to(y.dtype.element_ty), mask=mask)


@triton.jit
def grad_keys(
    q,
    k,
    v,
    log_decay,
    resets,
    before,
    after,
    grad_y,
    grad_q,
    grad_k,
    grad_log,
    stride_qb,
    stride_qt,
    stride_qh,
    stride_kb,
    stride_kt,
    stride_kh,
    stride_vb,
    stride_vt,
    stride_vh,
    stride_gb,
    stride_gt,
    stride_gh,
    stride_yb,
    stride_yt,
    stride_yh,
    T,
    H,
    K,
    V,
    STEPS: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of q, k and log a for some channels of one chunk of one head.

    log a_s is part of what reaches outputs i >= s from before the chunk, of what steps j < s leave at its
    end, of what the first state leaves there, and of the pairs j < s <= i: sums of like terms.
    """
    chunks = tl.cdiv(T, STEPS)
    b, chunk = (tl.program_id(0) // chunks).to(tl.int64), (tl.program_id(0) % chunks).to(tl.int64)
    h = tl.program_id(1).to(tl.int64)
    start = chunk * STEPS
    left = (T - start).to(tl.int32)
    i, c = tl.arange(0, STEPS), tl.program_id(2) * BK + tl.arange(0, BK)
    q += b * stride_qb + start * stride_qt + h * stride_qh
    k += b * stride_kb + start * stride_kt + h * stride_kh
    v += b * stride_vb + start * stride_vt + h * stride_vh
    grad_y += b * stride_yb + start * stride_yt + h * stride_yh
    log_decay += b * stride_gb + start * stride_gt + h * stride_gh
    resets += b * T + start
    head = ((b * H + h) * chunks + chunk) * K * V
    before += head
    after += head

    grad_scores = tl.zeros([STEPS, STEPS], ACC)
    to_queries, to_keys = tl.zeros([STEPS, BK], ACC), tl.zeros([STEPS, BK], ACC)
    through = tl.zeros([BK], ACC)
    for v0 in range(0, V, BV):
        n = v0 + tl.arange(0, BV)
        values = _tile(v, stride_vt, i, n, 0, left, V, ACC)
        pulls = _tile(grad_y, stride_yt, i, n, 0, left, V, ACC)
        grad_scores = tl.dot(pulls, tl.trans(values), grad_scores, input_precision=PRECISION, out_dtype=ACC)
        state, pull = _tile(before, V, c, n, 0, K, V, ACC), _tile(after, V, c, n, 0, K, V, ACC)
        to_queries = tl.dot(pulls, tl.trans(state), to_queries, input_precision=PRECISION, out_dtype=ACC)
        to_keys = tl.dot(values, tl.trans(pull), to_keys, input_precision=PRECISION, out_dtype=ACC)
        through += tl.sum(state * pull, 1)
    queries = _tile(q, stride_qt, i, c, 0, left, K, ACC)
    keys = _tile(k, stride_kt, i, c, 0, left, K, ACC)
    logs = _logs(log_decay, stride_gt, resets, i, c, left, K, STEPS, HAS_RESETS, ACC)
    later = _logs(log_decay, stride_gt, resets, i + 1, c, left, K, STEPS, HAS_RESETS, ACC)
    to_queries *= tl.exp(tl.cumsum(logs, 0))
    to_keys *= tl.exp(tl.cumsum(later, 0, reverse=True))
    pairs = _pairs(logs, STEPS) * grad_scores[:, :, None]
    query_side, key_side = pairs * keys[None, :, :], pairs * queries[:, None, :]
    # What of each pair's term is at or after s, for each j; of those, the j before s.
    since = tl.cumsum(query_side * queries[:, None, :], 0, reverse=True)
    earlier = (i[None, :] < i[:, None])[:, :, None]
    grad = tl.sum(tl.where(earlier, since, 0.0), 1)
    grad += tl.cumsum(queries * to_queries, 0, reverse=True)
    grad += (through * tl.exp(tl.sum(logs, 0)))[None, :]
    # What steps j < s leave, s by s: the sum up to s of the row before.
    ended = keys * to_keys
    kept = tl.sum(tl.where(earlier, ended[None, :, :], 0.0), 1)
    grad += kept
    to_queries += tl.sum(query_side, 1)
    to_keys += tl.sum(key_side, 0)
    out = ((b * T + start) * H + h) * K + i[:, None] * H * K + c[None, :]
    mask = (i < left)[:, None] & (c < K)[None, :]
    tl.store(grad_q + out, to_queries.to(grad_q.dtype.element_ty), mask=mask)
    tl.store(grad_k + out, to_keys.to(grad_k.dtype.element_ty), mask=mask)
    tl.store(grad_log + out, grad.to(grad_log.dtype.element_ty), mask=mask)
