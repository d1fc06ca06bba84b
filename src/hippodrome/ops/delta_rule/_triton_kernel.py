"""Kernels of the delta rule in Triton: the triangular systems, states between chunks, outputs, gradients.

A chunk is STEPS tokens, the least side of a product. With B[i, j] = beta_i L[i, j] k_i . k_j below the
diagonal, its writes are w = U (beta r), where U = (I + B)^-1 and r = v - e K S asks the state before the
chunk. Forward: ``invert`` finds U of all chunks at once, row by row (powers of B would be shorter and lose
their digits where keys repeat); ``states`` walks over the chunks of one head, writes w and hands down the
state before each; ``outputs`` then treats all chunks at once. Backward: ``states`` again, ``states_back``
walks from the last chunk to the first with the gradient of the state and that of beta r, and ``gradients``
treats all chunks at once.

Every decay is exp of a sum of its own terms, all at most zero and minus infinity at a reset: never of a
difference, so that nothing overflows or cancels. Every sum has a fixed order: no atomics. A program holds all
channels of a key (BK).
"""

import triton
import triton.language as tl

STEPS = 16


@triton.jit
def _tile(x, stride, rows, columns, high, size, ACC: tl.constexpr):
    """Rows below ``high`` of a matrix whose columns lie side by side, in ACC; zero outside."""
    mask = (rows < high)[:, None] & (columns < size)[None, :]
    return tl.load(x + rows[:, None] * stride + columns[None, :], mask=mask, other=0.0).to(ACC)


@triton.jit
def _row(x, stride, left, STEPS: tl.constexpr, ACC: tl.constexpr):
    """One number of each step of a chunk, zero past its end."""
    i = tl.arange(0, STEPS)
    return tl.load(x + i * stride, mask=i < left, other=0.0).to(ACC)


@triton.jit
def _logs(
    log_decay,
    stride,
    resets,
    rows,
    left,
    STEPS: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Log decays of some steps of a chunk; those past its end keep everything, a reset nothing."""
    inside = rows < tl.minimum(left, STEPS)
    logs = tl.zeros([STEPS], ACC)
    if HAS_GATE:
        logs = tl.load(log_decay + rows * stride, mask=inside, other=0.0).to(ACC)
    if HAS_RESETS:
        logs = tl.where(tl.load(resets + rows, mask=inside, other=0) != 0, float("-inf"), logs)
    return logs


@triton.jit
def _decays(
    log_decay,
    stride,
    resets,
    left,
    STEPS: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
):
    """e, f and L of one chunk, and what is left at its end of the state before it."""
    i = tl.arange(0, STEPS)
    logs = _logs(log_decay, stride, resets, i, left, STEPS, HAS_GATE, HAS_RESETS, ACC)
    later = _logs(log_decay, stride, resets, i + 1, left, STEPS, HAS_GATE, HAS_RESETS, ACC)
    sums = tl.cumsum(tl.where(i[:, None] > i[None, :], logs[:, None], 0.0), 0)
    pairs = tl.exp(tl.where(i[:, None] >= i[None, :], sums, float("-inf")))
    from_start, to_end = tl.exp(tl.cumsum(logs, 0)), tl.exp(tl.cumsum(later, 0, reverse=True))
    return from_start, to_end, pairs, tl.exp(tl.sum(logs, 0))


@triton.jit
def invert(
    k,
    beta,
    log_decay,
    resets,
    inverse,
    stride_kb,
    stride_kt,
    stride_kh,
    stride_bb,
    stride_bt,
    stride_bh,
    stride_gb,
    stride_gt,
    stride_gh,
    T,
    H,
    K,
    STEPS: tl.constexpr,
    BK: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """U of one chunk of one head, by forward substitution."""
    chunks = tl.cdiv(T, STEPS)
    b, chunk = (tl.program_id(0) // chunks).to(tl.int64), (tl.program_id(0) % chunks).to(tl.int64)
    h = tl.program_id(1).to(tl.int64)
    start = chunk * STEPS
    left = (T - start).to(tl.int32)
    i, c = tl.arange(0, STEPS), tl.arange(0, BK)
    keys = _tile(k + b * stride_kb + start * stride_kt + h * stride_kh, stride_kt, i, c, left, K, ACC)
    rates = _row(beta + b * stride_bb + start * stride_bt + h * stride_bh, stride_bt, left, STEPS, ACC)
    gate = log_decay + b * stride_gb + start * stride_gt + h * stride_gh
    _, _, pairs, _ = _decays(gate, stride_gt, resets + b * T + start, left, STEPS, HAS_GATE, HAS_RESETS, ACC)
    system = tl.dot(keys, tl.trans(keys), input_precision=PRECISION, out_dtype=ACC) * pairs * rates[:, None]
    found = tl.where(i[:, None] == i[None, :], 1.0, 0.0).to(ACC)
    for n in range(1, STEPS):
        weights = tl.sum(tl.where((i[:, None] == n) & (i[None, :] < n), system, 0.0), 0)
        taken = tl.sum(weights[:, None] * found, 0)
        found -= tl.where(i[:, None] == n, taken[None, :], 0.0)
    inverse += ((b * H + h) * chunks + chunk) * STEPS * STEPS
    tl.store(inverse + i[:, None] * STEPS + i[None, :], found)


@triton.jit
def states(
    k,
    v,
    beta,
    log_decay,
    resets,
    inverse,
    first,
    before,
    writes,
    last,
    stride_kb,
    stride_kt,
    stride_kh,
    stride_vb,
    stride_vt,
    stride_vh,
    stride_bb,
    stride_bt,
    stride_bh,
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
    HAS_GATE: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The state before each chunk of one head and what the last one leaves, and all writes (b, h, t, v)."""
    b, h = (tl.program_id(0) // H).to(tl.int64), (tl.program_id(0) % H).to(tl.int64)
    i, c = tl.arange(0, STEPS), tl.arange(0, BK)
    n = tl.program_id(1) * BV + tl.arange(0, BV)
    k += b * stride_kb + h * stride_kh
    v += b * stride_vb + h * stride_vh
    beta += b * stride_bb + h * stride_bh
    log_decay += b * stride_gb + h * stride_gh
    resets += b * T
    chunks = tl.cdiv(T, STEPS)
    head = b * H + h
    square, inside = c[:, None] * V + n[None, :], (c < K)[:, None] & (n < V)[None, :]
    state = tl.load(first + head * K * V + square, mask=inside, other=0.0).to(ACC)
    before += head * chunks * K * V
    inverse += head * chunks * STEPS * STEPS
    writes += head * T * V
    # A chunk's first step, in 64 bits: offsets from the start of a tensor may need them.
    start = b * 0
    for _ in range(0, chunks):
        left = (T - start).to(tl.int32)
        chunk = start // STEPS
        tl.store(before + chunk * K * V + square, state, mask=inside)
        keys = _tile(k + start * stride_kt, stride_kt, i, c, left, K, ACC)
        values = _tile(v + start * stride_vt, stride_vt, i, n, left, V, ACC)
        rates = _row(beta + start * stride_bt, stride_bt, left, STEPS, ACC)
        from_start, to_end, _, through = _decays(
            log_decay + start * stride_gt, stride_gt, resets + start, left, STEPS, HAS_GATE, HAS_RESETS, ACC
        )
        found = tl.load(inverse + chunk * STEPS * STEPS + i[:, None] * STEPS + i[None, :])
        asked = keys * from_start[:, None]
        rest = values - tl.dot(asked, state, input_precision=PRECISION, out_dtype=ACC)
        write = tl.dot(found, rest * rates[:, None], input_precision=PRECISION, out_dtype=ACC)
        mask = (i < left)[:, None] & (n < V)[None, :]
        tl.store(writes + (start + i[:, None]) * V + n[None, :], write, mask=mask)
        kept = tl.trans(keys * to_end[:, None])
        state = state * through + tl.dot(kept, write, input_precision=PRECISION, out_dtype=ACC)
        start += STEPS
    tl.store(last + head * K * V + square, state, mask=inside)


@triton.jit
def outputs(
    q,
    k,
    log_decay,
    resets,
    before,
    writes,
    y,
    stride_qb,
    stride_qt,
    stride_qh,
    stride_kb,
    stride_kt,
    stride_kh,
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
    HAS_GATE: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Outputs of one chunk of one head, y_i = (e_i q_i) S + sum_{j <= i} L[i, j] (q_i . k_j) w_j."""
    chunks = tl.cdiv(T, STEPS)
    b, chunk = (tl.program_id(0) // chunks).to(tl.int64), (tl.program_id(0) % chunks).to(tl.int64)
    h = tl.program_id(1).to(tl.int64)
    start = chunk * STEPS
    left = (T - start).to(tl.int32)
    i, c = tl.arange(0, STEPS), tl.arange(0, BK)
    n = tl.program_id(2) * BV + tl.arange(0, BV)
    queries = _tile(q + b * stride_qb + start * stride_qt + h * stride_qh, stride_qt, i, c, left, K, ACC)
    keys = _tile(k + b * stride_kb + start * stride_kt + h * stride_kh, stride_kt, i, c, left, K, ACC)
    gate = log_decay + b * stride_gb + start * stride_gt + h * stride_gh
    from_start, _, pairs, _ = _decays(
        gate, stride_gt, resets + b * T + start, left, STEPS, HAS_GATE, HAS_RESETS, ACC
    )
    head = b * H + h
    write = _tile(writes + (head * T + start) * V, V, i, n, left, V, ACC)
    state = _tile(before + (head * chunks + chunk) * K * V, V, c, n, K, V, ACC)
    scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION, out_dtype=ACC) * pairs
    total = tl.dot(queries * from_start[:, None], state, input_precision=PRECISION, out_dtype=ACC)
    total = tl.dot(scores, write, total, input_precision=PRECISION, out_dtype=ACC)
    y += ((b * T + start) * H + h) * V
    mask = (i < left)[:, None] & (n < V)[None, :]
    tl.store(y + i[:, None] * H * V + n[None, :], total.to(y.dtype.element_ty), mask=mask)


@triton.jit
def states_back(
    q,
    k,
    beta,
    log_decay,
    resets,
    inverse,
    grad_y,
    grad_last,
    after,
    grad_rest,
    grad_first,
    stride_qb,
    stride_qt,
    stride_qh,
    stride_kb,
    stride_kt,
    stride_kh,
    stride_bb,
    stride_bt,
    stride_bh,
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
    HAS_GATE: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of the state after each chunk of one head and before the first, and that of beta r."""
    b, h = (tl.program_id(0) // H).to(tl.int64), (tl.program_id(0) % H).to(tl.int64)
    i, c = tl.arange(0, STEPS), tl.arange(0, BK)
    n = tl.program_id(1) * BV + tl.arange(0, BV)
    q += b * stride_qb + h * stride_qh
    k += b * stride_kb + h * stride_kh
    beta += b * stride_bb + h * stride_bh
    log_decay += b * stride_gb + h * stride_gh
    grad_y += b * stride_yb + h * stride_yh
    resets += b * T
    chunks = tl.cdiv(T, STEPS)
    head = b * H + h
    square, inside = c[:, None] * V + n[None, :], (c < K)[:, None] & (n < V)[None, :]
    pull = tl.load(grad_last + head * K * V + square, mask=inside, other=0.0).to(ACC)
    after += head * chunks * K * V
    inverse += head * chunks * STEPS * STEPS
    grad_rest += head * T * V
    start = b * 0 + (chunks - 1) * STEPS
    for _ in range(0, chunks):
        left = (T - start).to(tl.int32)
        chunk = start // STEPS
        tl.store(after + chunk * K * V + square, pull, mask=inside)
        queries = _tile(q + start * stride_qt, stride_qt, i, c, left, K, ACC)
        keys = _tile(k + start * stride_kt, stride_kt, i, c, left, K, ACC)
        pulls = _tile(grad_y + start * stride_yt, stride_yt, i, n, left, V, ACC)
        rates = _row(beta + start * stride_bt, stride_bt, left, STEPS, ACC)
        from_start, to_end, pairs, through = _decays(
            log_decay + start * stride_gt, stride_gt, resets + start, left, STEPS, HAS_GATE, HAS_RESETS, ACC
        )
        found = tl.load(inverse + chunk * STEPS * STEPS + i[:, None] * STEPS + i[None, :])
        scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION, out_dtype=ACC) * pairs
        grad = tl.dot(keys * to_end[:, None], pull, input_precision=PRECISION, out_dtype=ACC)
        grad = tl.dot(tl.trans(scores), pulls, grad, input_precision=PRECISION, out_dtype=ACC)
        grad = tl.dot(tl.trans(found), grad, input_precision=PRECISION, out_dtype=ACC)
        mask = (i < left)[:, None] & (n < V)[None, :]
        tl.store(grad_rest + (start + i[:, None]) * V + n[None, :], grad, mask=mask)
        asked = tl.trans(keys * (from_start * rates)[:, None])
        read = tl.trans(queries * from_start[:, None])
        pull = pull * through - tl.dot(asked, grad, input_precision=PRECISION, out_dtype=ACC)
        pull = tl.dot(read, pulls, pull, input_precision=PRECISION, out_dtype=ACC)
        start -= STEPS
    tl.store(grad_first + head * K * V + square, pull, mask=inside)


@triton.jit
def gradients(
    q,
    k,
    v,
    beta,
    log_decay,
    resets,
    before,
    after,
    writes,
    grad_rest,
    grad_y,
    grad_q,
    grad_k,
    grad_v,
    grad_beta,
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
    stride_bb,
    stride_bt,
    stride_bh,
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
    HAS_GATE: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """All gradients of one chunk of one head but those that ran through ``states_back``."""
    chunks = tl.cdiv(T, STEPS)
    b, chunk = (tl.program_id(0) // chunks).to(tl.int64), (tl.program_id(0) % chunks).to(tl.int64)
    h = tl.program_id(1).to(tl.int64)
    start = chunk * STEPS
    left = (T - start).to(tl.int32)
    i, c = tl.arange(0, STEPS), tl.arange(0, BK)
    queries = _tile(q + b * stride_qb + start * stride_qt + h * stride_qh, stride_qt, i, c, left, K, ACC)
    keys = _tile(k + b * stride_kb + start * stride_kt + h * stride_kh, stride_kt, i, c, left, K, ACC)
    rates = _row(beta + b * stride_bb + start * stride_bt + h * stride_bh, stride_bt, left, STEPS, ACC)
    gate = log_decay + b * stride_gb + start * stride_gt + h * stride_gh
    from_start, to_end, pairs, through = _decays(
        gate, stride_gt, resets + b * T + start, left, STEPS, HAS_GATE, HAS_RESETS, ACC
    )
    v += b * stride_vb + start * stride_vt + h * stride_vh
    grad_y += b * stride_yb + start * stride_yt + h * stride_yh
    head = b * H + h
    before += (head * chunks + chunk) * K * V
    after += (head * chunks + chunk) * K * V
    writes += (head * T + start) * V
    grad_rest += (head * T + start) * V
    out = (b * T + start) * H + h

    asked = keys * from_start[:, None]
    to_scores, to_system = tl.zeros([STEPS, STEPS], ACC), tl.zeros([STEPS, STEPS], ACC)
    to_queries, to_asked, to_kept = (
        tl.zeros([STEPS, BK], ACC),
        tl.zeros([STEPS, BK], ACC),
        tl.zeros([STEPS, BK], ACC),
    )
    to_rates, passed = tl.zeros([STEPS], ACC), tl.zeros([BK], ACC)
    for n0 in range(0, V, BV):
        n = n0 + tl.arange(0, BV)
        values = _tile(v, stride_vt, i, n, left, V, ACC)
        pulls = _tile(grad_y, stride_yt, i, n, left, V, ACC)
        write, grad = _tile(writes, V, i, n, left, V, ACC), _tile(grad_rest, V, i, n, left, V, ACC)
        state, pull = _tile(before, V, c, n, K, V, ACC), _tile(after, V, c, n, K, V, ACC)
        rest = values - tl.dot(asked, state, input_precision=PRECISION, out_dtype=ACC)
        to_rates += tl.sum(grad * rest, 1)
        to_scores = tl.dot(pulls, tl.trans(write), to_scores, input_precision=PRECISION, out_dtype=ACC)
        to_system = tl.dot(grad, tl.trans(write), to_system, input_precision=PRECISION, out_dtype=ACC)
        to_value = grad * rates[:, None]
        mask = (i < left)[:, None] & (n < V)[None, :]
        place = grad_v + out * V + i[:, None] * H * V + n[None, :]
        tl.store(place, to_value.to(grad_v.dtype.element_ty), mask=mask)
        turned = tl.trans(state)
        to_queries = tl.dot(pulls, turned, to_queries, input_precision=PRECISION, out_dtype=ACC)
        to_asked = tl.dot(to_value, turned, to_asked, input_precision=PRECISION, out_dtype=ACC)
        to_kept = tl.dot(write, tl.trans(pull), to_kept, input_precision=PRECISION, out_dtype=ACC)
        passed += tl.sum(state * pull, 1)
    to_queries *= from_start[:, None]
    to_asked *= -from_start[:, None]
    to_kept *= to_end[:, None]
    below = i[:, None] > i[None, :]
    products = tl.dot(keys, tl.trans(keys), input_precision=PRECISION, out_dtype=ACC) * pairs
    to_system = tl.where(below, -to_system, 0.0)
    to_rates += tl.sum(to_system * products, 1)
    weights = to_system * pairs * rates[:, None]
    shares = to_scores * pairs
    place = out + i * H
    tl.store(grad_beta + place, to_rates.to(grad_beta.dtype.element_ty), mask=i < left)
    if HAS_GATE:
        # log d_s is part of what reaches outputs i >= s from before the chunk, of what steps j < s leave at
        # its end, of what the first state leaves there, and of the pairs j < s <= i: sums of like terms.
        scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION, out_dtype=ACC)
        terms = shares * scores + to_system * products * rates[:, None]
        since = tl.cumsum(tl.where(below, terms, 0.0), 0, reverse=True)
        reached = tl.sum(queries * to_queries + keys * to_asked, 1)
        ended = tl.sum(keys * to_kept, 1)
        grad_gate = tl.sum(tl.where(below, since + ended[None, :], 0.0), 1)
        grad_gate += tl.cumsum(reached, 0, reverse=True) + tl.sum(passed, 0) * through
        tl.store(grad_log + place, grad_gate.to(grad_log.dtype.element_ty), mask=i < left)
    to_queries = tl.dot(shares, keys, to_queries, input_precision=PRECISION, out_dtype=ACC)
    to_keys = to_asked + to_kept
    to_keys = tl.dot(tl.trans(shares), queries, to_keys, input_precision=PRECISION, out_dtype=ACC)
    to_keys = tl.dot(weights, keys, to_keys, input_precision=PRECISION, out_dtype=ACC)
    to_keys = tl.dot(tl.trans(weights), keys, to_keys, input_precision=PRECISION, out_dtype=ACC)
    place = out * K + i[:, None] * H * K + c[None, :]
    mask = (i < left)[:, None] & (c < K)[None, :]
    tl.store(grad_q + place, to_queries.to(grad_q.dtype.element_ty), mask=mask)
    tl.store(grad_k + place, to_keys.to(grad_k.dtype.element_ty), mask=mask)
