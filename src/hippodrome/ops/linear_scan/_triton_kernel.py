"""Triton kernels of the linear scan: a program takes a block of channels and goes through a segment of time.

Time comes in tiles of T steps by D channels. Within a tile the recurrence is an associative scan over pairs
(decay, value); from tile to tile the last row is carried in registers while the next tiles are on their way
to shared memory, so that every number is read once. Where there are too few channels to fill a GPU, time is
cut into segments: ``aggregate`` reduces each to one pair, ``forward`` scans the pairs as if they were steps,
and then runs once more over the segments with the state that each begins with. Sums have a fixed order.
"""

import triton
import triton.language as tl

VARYING = ["t", "segments", "steps"]
"""Numbers for which no kernel of its own is compiled: every length runs the same code."""


@triton.jit
def combine(a, x, c, y):
    """First (a, x), then (c, y): one step of both."""
    return a * c, c * x + y


@triton.jit(do_not_specialize=VARYING)
def aggregate(
    a,
    x,
    resets,
    product,
    value,
    t,
    d,
    segments,
    steps,
    a_b,
    a_t,
    x_b,
    x_t,
    REVERSE: tl.constexpr,
    CONSTANT: tl.constexpr,
    RESETS: tl.constexpr,
    T: tl.constexpr,
    D: tl.constexpr,
    STAGES: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Each segment as one pair (b, segments, d): what it multiplies a state by, and what it adds.

    With ``REVERSE`` time runs backwards, the decay of a step is that of the one after it, and the last
    segment comes first.
    """
    blocks = tl.cdiv(d, D)
    program = tl.program_id(0).to(tl.int64)
    block, row = program % blocks, program // blocks
    segment, b = row % segments, row // segments
    column = block * D + tl.arange(0, D)
    inside = (column < d)[None, :]
    low = segment * steps
    high = tl.minimum(low + steps, t)
    i = tl.arange(0, T)[:, None]
    p, v = tl.full((D,), 1, WIDE), tl.zeros((D,), WIDE)
    for start in tl.range(0, steps, T, num_stages=STAGES):
        if REVERSE:
            time = high - 1 - start - i
            live = time >= low
            at = time + 1
            moved = live & (at < t)
        else:
            time = low + start + i
            live = time < high
            at = time
            moved = live
        here = x + b * x_b + time * x_t + column[None, :]
        xs = tl.load(here, live & inside, other=0).to(WIDE)
        if CONSTANT:
            decay = tl.broadcast_to(tl.load(a + column[None, :], inside, other=0).to(WIDE), (T, D))
        else:
            decay = tl.load(a + b * a_b + at * a_t + column[None, :], moved & inside, other=0).to(WIDE)
        decay = tl.where(moved, decay, 1)
        if RESETS:
            reset = tl.load(resets + b * t + at, moved, other=0) != 0
            decay = tl.where(reset, 0, decay)
        ps, vs = tl.associative_scan((decay, xs), 0, combine)
        end = i == T - 1
        last_p, last_v = tl.sum(tl.where(end, ps, 0), 0), tl.sum(tl.where(end, vs, 0), 0)
        p, v = combine(p, v, last_p, last_v)
    if REVERSE:
        row = b * segments + segments - 1 - segment
    to = row * d + column
    tl.store(product + to, p, column < d)
    tl.store(value + to, v, column < d)


@triton.jit(do_not_specialize=VARYING)
def forward(
    a,
    x,
    starts,
    resets,
    h,
    last,
    t,
    d,
    segments,
    steps,
    a_b,
    a_t,
    x_b,
    x_t,
    CONSTANT: tl.constexpr,
    RESETS: tl.constexpr,
    T: tl.constexpr,
    D: tl.constexpr,
    STAGES: tl.constexpr,
    WIDE: tl.constexpr,
):
    """h[t] = a[t] h[t-1] + x[t]; ``starts`` (b, segments, d) holds the state before each segment."""
    blocks = tl.cdiv(d, D)
    program = tl.program_id(0).to(tl.int64)
    block, row = program % blocks, program // blocks
    segment, b = row % segments, row // segments
    column = block * D + tl.arange(0, D)
    inside = (column < d)[None, :]
    low = segment * steps
    high = tl.minimum(low + steps, t)
    i = tl.arange(0, T)[:, None]
    carry = tl.load(starts + row * d + column, column < d, other=0).to(WIDE)
    for start in tl.range(0, steps, T, num_stages=STAGES):
        time = low + start + i
        live = time < high
        xs = tl.load(x + b * x_b + time * x_t + column[None, :], live & inside, other=0).to(WIDE)
        if CONSTANT:
            decay = tl.broadcast_to(tl.load(a + column[None, :], inside, other=0).to(WIDE), (T, D))
        else:
            decay = tl.load(a + b * a_b + time * a_t + column[None, :], live & inside, other=0).to(WIDE)
        decay = tl.where(live, decay, 1)
        if RESETS:
            reset = tl.load(resets + b * t + time, live, other=0) != 0
            decay = tl.where(reset, 0, decay)
        ps, vs = tl.associative_scan((decay, xs), 0, combine)
        vs += ps * carry[None, :]
        carry = tl.sum(tl.where(i == T - 1, vs, 0), 0)
        to = h + (b * t + time) * d + column[None, :]
        tl.store(to, vs.to(h.dtype.element_ty), live & inside)
    if segment == segments - 1:
        tl.store(last + b * d + column, carry, column < d)


@triton.jit(do_not_specialize=VARYING)
def backward(
    a,
    state,
    starts,
    resets,
    h,
    grad_h,
    grad_a,
    grad_x,
    grad_state,
    t,
    d,
    segments,
    steps,
    a_b,
    a_t,
    g_b,
    g_t,
    CONSTANT: tl.constexpr,
    RESETS: tl.constexpr,
    T: tl.constexpr,
    D: tl.constexpr,
    STAGES: tl.constexpr,
    WIDE: tl.constexpr,
):
    """g[t] = grad_h[t] + a[t+1] g[t+1] is the gradient of x[t]; that of a[t] is g[t] h[t-1].

    ``starts`` (b, segments, d), last segment first, holds g after each segment. Where a is constant,
    ``grad_a`` (b, segments, d) takes float64 sums over a segment's steps.
    """
    blocks = tl.cdiv(d, D)
    program = tl.program_id(0).to(tl.int64)
    block, row = program % blocks, program // blocks
    segment, b = row % segments, row // segments
    column = block * D + tl.arange(0, D)
    inside = (column < d)[None, :]
    low = segment * steps
    high = tl.minimum(low + steps, t)
    i = tl.arange(0, T)[:, None]
    reverse = b * segments + segments - 1 - segment
    carry = tl.load(starts + reverse * d + column, column < d, other=0).to(WIDE)
    first = tl.load(state + b * d + column, column < d, other=0).to(WIDE)
    total = tl.zeros((D,), tl.float64)
    for start in tl.range(0, steps, T, num_stages=STAGES):
        time = high - 1 - start - i
        live = time >= low
        moved = live & (time + 1 < t)
        gs = tl.load(grad_h + b * g_b + time * g_t + column[None, :], live & inside, other=0).to(WIDE)
        if CONSTANT:
            decay = tl.broadcast_to(tl.load(a + column[None, :], inside, other=0).to(WIDE), (T, D))
        else:
            at = a + b * a_b + (time + 1) * a_t + column[None, :]
            decay = tl.load(at, moved & inside, other=0).to(WIDE)
        decay = tl.where(moved, decay, 1)
        if RESETS:
            reset = tl.load(resets + b * t + time + 1, moved, other=0) != 0
            decay = tl.where(reset, 0, decay)
        ps, vs = tl.associative_scan((decay, gs), 0, combine)
        vs += ps * carry[None, :]
        carry = tl.sum(tl.where(i == T - 1, vs, 0), 0)
        to = (b * t + time) * d + column[None, :]
        tl.store(grad_x + to, vs.to(grad_x.dtype.element_ty), live & inside)
        before = tl.load(h + to - d, live & inside & (time > 0), other=0).to(WIDE)
        before = tl.where(time == 0, first[None, :], before)
        if RESETS:
            reset = tl.load(resets + b * t + time, live, other=0) != 0
            before = tl.where(reset, 0, before)
        if CONSTANT:
            total += tl.sum(tl.where(live, vs * before, 0), 0).to(tl.float64)
        else:
            tl.store(grad_a + to, (vs * before).to(grad_a.dtype.element_ty), live & inside)
    if CONSTANT:
        tl.store(grad_a + row * d + column, total, column < d)
    if segment == 0:
        if CONSTANT:
            decay = tl.load(a + column, column < d, other=0).to(WIDE)
        else:
            decay = tl.load(a + b * a_b + column, column < d, other=0).to(WIDE)
        if RESETS:
            decay = tl.where(tl.load(resets + b * t) != 0, 0, decay)
        tl.store(grad_state + b * d + column, decay * carry, column < d)
