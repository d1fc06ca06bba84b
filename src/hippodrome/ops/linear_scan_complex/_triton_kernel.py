"""Triton kernels of the complex linear scan: a program takes a block of channels through a segment of time.

As in the real scan, time comes in tiles of T steps by D channels, each an associative scan over pairs (decay,
value), here of complex numbers, with the last row carried on to the next tile. A channel's real and imaginary
part lie side by side in memory: a tile is read as T rows of 2 D adjoining numbers and split in registers.
"""

import triton
import triton.language as tl

VARYING = ["t", "segments", "steps"]
"""Numbers for which no kernel of its own is compiled: every length runs the same code."""


@triton.jit
def combine(ar, ai, xr, xi, cr, ci, yr, yi):
    """First (a, x), then (c, y): one step of both."""
    return (
        ar * cr - ai * ci,
        ar * ci + ai * cr,
        cr * xr - ci * xi + yr,
        cr * xi + ci * xr + yi,
    )


@triton.jit
def load(pointers, mask, WIDE: tl.constexpr):
    """A tile (T, 2 D) as its real and its imaginary part (T, D)."""
    x = tl.load(pointers, mask, other=0).to(WIDE)
    return tl.split(tl.reshape(x, (x.shape[0], x.shape[1] // 2, 2)))


@triton.jit
def store(pointers, real, imaginary, mask):
    """The way back of ``load``."""
    x = tl.reshape(tl.join(real, imaginary), (real.shape[0], real.shape[1] * 2))
    tl.store(pointers, x.to(pointers.dtype.element_ty), mask)


@triton.jit
def load_row(pointer, column, mask, WIDE: tl.constexpr):
    """A row of D complex numbers."""
    real = tl.load(pointer + 2 * column, mask, other=0).to(WIDE)
    return real, tl.load(pointer + 2 * column + 1, mask, other=0).to(WIDE)


@triton.jit
def store_row(pointer, column, real, imaginary, mask):
    """The way back of ``load_row``."""
    tl.store(pointer + 2 * column, real, mask)
    tl.store(pointer + 2 * column + 1, imaginary, mask)


@triton.jit
def decays(a, row, at, column, a_b, a_t, live, moved, inside, T: tl.constexpr, CONSTANT: tl.constexpr, WIDE):
    """The tile of decays for times ``at``: one where there is no step (``moved`` is false)."""
    if CONSTANT:
        real, imaginary = load(a + column[None, :] + tl.zeros((T, 1), tl.int64), inside & (at == at), WIDE)
    else:
        real, imaginary = load(a + row * a_b + at * a_t + column[None, :], moved & inside, WIDE)
    return tl.where(moved, real, 1), tl.where(moved, imaginary, 0)


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
    """Each segment as one pair (b, segments, d, 2): what it multiplies a state by, and what it adds.

    With ``REVERSE`` time runs backwards, the decay of a step is the conjugate of the one after it, and the
    last segment comes first.
    """
    blocks = tl.cdiv(d, D)
    program = tl.program_id(0).to(tl.int64)
    block, row = program % blocks, program // blocks
    segment, b = row % segments, row // segments
    channel, column = block * D + tl.arange(0, D), block * 2 * D + tl.arange(0, 2 * D)
    inside = (column < 2 * d)[None, :]
    low = segment * steps
    high = tl.minimum(low + steps, t)
    i = tl.arange(0, T)[:, None]
    pr, pi = tl.full((D,), 1, WIDE), tl.zeros((D,), WIDE)
    vr, vi = tl.zeros((D,), WIDE), tl.zeros((D,), WIDE)
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
        xr, xi = load(x + b * x_b + time * x_t + column[None, :], live & inside, WIDE)
        ar, ai = decays(a, b, at, column, a_b, a_t, live, moved, inside, T, CONSTANT, WIDE)
        if REVERSE:
            ai = -ai
        if RESETS:
            reset = tl.load(resets + b * t + at, moved, other=0) != 0
            ar, ai = tl.where(reset, 0, ar), tl.where(reset, 0, ai)
        qr, qi, ur, ui = tl.associative_scan((ar, ai, xr, xi), 0, combine)
        end = i == T - 1
        qr, qi = tl.sum(tl.where(end, qr, 0), 0), tl.sum(tl.where(end, qi, 0), 0)
        ur, ui = tl.sum(tl.where(end, ur, 0), 0), tl.sum(tl.where(end, ui, 0), 0)
        pr, pi, vr, vi = combine(pr, pi, vr, vi, qr, qi, ur, ui)
    if REVERSE:
        row = b * segments + segments - 1 - segment
    store_row(product + row * 2 * d, channel, pr, pi, channel < d)
    store_row(value + row * 2 * d, channel, vr, vi, channel < d)


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
    """h[t] = a[t] h[t-1] + x[t]; ``starts`` (b, segments, d, 2) holds the state before each segment."""
    blocks = tl.cdiv(d, D)
    program = tl.program_id(0).to(tl.int64)
    block, row = program % blocks, program // blocks
    segment, b = row % segments, row // segments
    channel, column = block * D + tl.arange(0, D), block * 2 * D + tl.arange(0, 2 * D)
    inside = (column < 2 * d)[None, :]
    low = segment * steps
    high = tl.minimum(low + steps, t)
    i = tl.arange(0, T)[:, None]
    sr, si = load_row(starts + row * 2 * d, channel, channel < d, WIDE)
    for start in tl.range(0, steps, T, num_stages=STAGES):
        time = low + start + i
        live = time < high
        xr, xi = load(x + b * x_b + time * x_t + column[None, :], live & inside, WIDE)
        ar, ai = decays(a, b, time, column, a_b, a_t, live, live, inside, T, CONSTANT, WIDE)
        if RESETS:
            reset = tl.load(resets + b * t + time, live, other=0) != 0
            ar, ai = tl.where(reset, 0, ar), tl.where(reset, 0, ai)
        pr, pi, vr, vi = tl.associative_scan((ar, ai, xr, xi), 0, combine)
        vr += pr * sr[None, :] - pi * si[None, :]
        vi += pr * si[None, :] + pi * sr[None, :]
        end = i == T - 1
        sr, si = tl.sum(tl.where(end, vr, 0), 0), tl.sum(tl.where(end, vi, 0), 0)
        store(h + (b * t + time) * 2 * d + column[None, :], vr, vi, live & inside)
    if segment == segments - 1:
        store_row(last + b * 2 * d, channel, sr, si, channel < d)


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
    """g[t] = grad_h[t] + conj(a[t+1]) g[t+1] is the gradient of x[t]; that of a[t] is g[t] conj(h[t-1]).

    ``starts`` (b, segments, d, 2), last segment first, holds g after each segment. Where a is constant,
    ``grad_a`` (b, segments, d, 2) takes float64 sums over a segment's steps.
    """
    blocks = tl.cdiv(d, D)
    program = tl.program_id(0).to(tl.int64)
    block, row = program % blocks, program // blocks
    segment, b = row % segments, row // segments
    channel, column = block * D + tl.arange(0, D), block * 2 * D + tl.arange(0, 2 * D)
    inside = (column < 2 * d)[None, :]
    low = segment * steps
    high = tl.minimum(low + steps, t)
    i = tl.arange(0, T)[:, None]
    reverse = b * segments + segments - 1 - segment
    sr, si = load_row(starts + reverse * 2 * d, channel, channel < d, WIDE)
    first_r, first_i = load_row(state + b * 2 * d, channel, channel < d, WIDE)
    total_r, total_i = tl.zeros((D,), tl.float64), tl.zeros((D,), tl.float64)
    for start in tl.range(0, steps, T, num_stages=STAGES):
        time = high - 1 - start - i
        live = time >= low
        moved = live & (time + 1 < t)
        gr, gi = load(grad_h + b * g_b + time * g_t + column[None, :], live & inside, WIDE)
        ar, ai = decays(a, b, time + 1, column, a_b, a_t, live, moved, inside, T, CONSTANT, WIDE)
        if RESETS:
            reset = tl.load(resets + b * t + time + 1, moved, other=0) != 0
            ar, ai = tl.where(reset, 0, ar), tl.where(reset, 0, ai)
        pr, pi, vr, vi = tl.associative_scan((ar, -ai, gr, gi), 0, combine)
        vr += pr * sr[None, :] - pi * si[None, :]
        vi += pr * si[None, :] + pi * sr[None, :]
        end = i == T - 1
        sr, si = tl.sum(tl.where(end, vr, 0), 0), tl.sum(tl.where(end, vi, 0), 0)
        to = (b * t + time) * 2 * d + column[None, :]
        store(grad_x + to, vr, vi, live & inside)
        hr, hi = load(h + to - 2 * d, live & inside & (time > 0), WIDE)
        hr, hi = tl.where(time == 0, first_r[None, :], hr), tl.where(time == 0, first_i[None, :], hi)
        if RESETS:
            reset = tl.load(resets + b * t + time, live, other=0) != 0
            hr, hi = tl.where(reset, 0, hr), tl.where(reset, 0, hi)
        real, imaginary = vr * hr + vi * hi, vi * hr - vr * hi
        if CONSTANT:
            total_r += tl.sum(tl.where(live, real, 0), 0).to(tl.float64)
            total_i += tl.sum(tl.where(live, imaginary, 0), 0).to(tl.float64)
        else:
            store(grad_a + to, real, imaginary, live & inside)
    if CONSTANT:
        store_row(grad_a + row * 2 * d, channel, total_r, total_i, channel < d)
    if segment == 0:
        if CONSTANT:
            ar, ai = load_row(a, channel, channel < d, WIDE)
        else:
            ar, ai = load_row(a + b * a_b, channel, channel < d, WIDE)
        if RESETS:
            reset = tl.load(resets + b * t) != 0
            ar, ai = tl.where(reset, 0, ar), tl.where(reset, 0, ai)
        store_row(grad_state + b * 2 * d, channel, ar * sr + ai * si, ar * si - ai * sr, channel < d)
