"""Triton kernels of the selective scan: a warp holds D channels by N state coordinates in registers.

Time advances step by step, in groups of U steps whose loads are all issued before the first is used and whose
stores come last, so that the latency of memory and of the exponentials hides behind other steps. A channel's
states lie in one thread or in a few adjoining ones, hence sums over the state cost two shuffles.

Where the channels alone do not fill a GPU, time is cut into segments: ``aggregate`` reduces each to what it
multiplies a state by and what it adds, a linear scan over those gives the state before each, and ``forward``
runs the segments side by side. The backward pass goes over each segment twice: ``retrace`` recomputes the
states, leaves one every few steps, and reduces the reversed recurrence of the segment to a pair; ``backward``
then takes groups of U steps in reverse with all their states in registers. Sums over channels, rows and
segments are left as parts for fixed-order sums outside: nothing is added atomically.
"""

# mypy: disable-error-code="assignment, var-annotated"
# Tuples grow as Triton unrolls the loops around them: a type checker takes the first length for the only one.
# ruff: noqa: RUF005, SIM108  (Triton knows tuples that are added, not unpacked, and branches of constants)

import triton
import triton.language as tl

from hippodrome.ops._fast_kernel import LN_2, LOG2_E, exp2, sigmoid, softplus, softplus_slope

VARYING = ["t", "g", "segments", "steps"]
"""Numbers for which no kernel of its own is compiled: every length runs the same code."""


@triton.jit
def locate(t, d, g, segments, steps, D: tl.constexpr):
    """Where a program stands: batch row, segment and its steps, group of B and C, channels and their mask."""
    width = d // g
    blocks = tl.cdiv(width, D)
    program = tl.program_id(0).to(tl.int64)
    block, row = program % blocks, program // blocks
    part, row = row % g, row // g
    segment, b = row % segments, row // segments
    inner = block * D + tl.arange(0, D)
    low = segment * steps
    return b, segment, low, tl.minimum(low + steps, t), part, part * width + inner, inner < width, block


@triton.jit
def read(pointers, at, stride, mask, EVEN: tl.constexpr, WIDE: tl.constexpr):
    """One step's row of numbers; without a mask where every tile is whole."""
    if EVEN:
        return tl.load(pointers + at * stride).to(WIDE)
    else:
        return tl.load(pointers + at * stride, mask, other=0).to(WIDE)


@triton.jit
def write(pointers, at, stride, x, mask, EVEN: tl.constexpr):
    """The way back of ``read``."""
    if EVEN:
        tl.store(pointers + at * stride, x.to(pointers.dtype.element_ty))
    else:
        tl.store(pointers + at * stride, x.to(pointers.dtype.element_ty), mask)


@triton.jit
def read_steps(pointers, stride, at, high, inside, U: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr):
    """U steps of a row of numbers from time ``at`` on, zeros from ``high`` on, as a tuple."""
    found = ()
    for j in tl.static_range(U):
        found = found + (read(pointers, at + j, stride, inside & (at + j < high), EVEN, WIDE),)
    return found


@triton.jit
def step_sizes(raw, bias, at, high, U: tl.constexpr, EVEN: tl.constexpr, SOFTPLUS: tl.constexpr):
    """The steps taken: bias and softplus applied, zero (no step at all) from ``high`` on."""
    found = ()
    for j in tl.static_range(U):
        delta = raw[j] + bias
        if SOFTPLUS:
            delta = softplus(delta)
        if not EVEN:
            delta = tl.where(at + j < high, delta, 0.0)
        found = found + (delta,)
    return found


@triton.jit
def read_marks(resets, b, t, at, high, U: tl.constexpr, RESETS: tl.constexpr):
    """Whether each of U steps begins anew, as a tuple."""
    found = ()
    for j in tl.static_range(U):
        if RESETS:
            found = found + (tl.load(resets + b * t + at + j, at + j < high, other=0) != 0,)
        else:
            found = found + (False,)
    return found


@triton.jit
def advance(
    h,
    rates,
    shift,
    u,
    dt,
    B,
    resets,
    b,
    t,
    u_t,
    dt_t,
    B_t,
    at,
    high,
    column,
    inside,
    k,
    n: tl.constexpr,
    U: tl.constexpr,
    EVEN: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    RESETS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The state after U more steps."""
    raw = read_steps(dt + column, dt_t, at, high, inside, U, EVEN, WIDE)
    xs = read_steps(u + column, u_t, at, high, inside, U, EVEN, WIDE)
    Bs = read_steps(B + k, B_t, at, high, k < n, U, EVEN, WIDE)
    marks = read_marks(resets, b, t, at, high, U, RESETS)
    deltas = step_sizes(raw, shift, at, high, U, EVEN, SOFTPLUS)
    for j in tl.static_range(U):
        if RESETS:
            h = tl.where(marks[j], 0, h)
        h = exp2(deltas[j][:, None] * rates) * h + (deltas[j] * xs[j])[:, None] * Bs[j][None, :]
    return h


@triton.jit(do_not_specialize=VARYING)
def aggregate(
    u,
    dt,
    A,
    B,
    bias,
    resets,
    product,
    value,
    t,
    d,
    g,
    segments,
    steps,
    u_b,
    u_t,
    dt_b,
    dt_t,
    B_b,
    B_t,
    B_g,
    n: tl.constexpr,
    N: tl.constexpr,
    D: tl.constexpr,
    U: tl.constexpr,
    EVEN: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    BIAS: tl.constexpr,
    RESETS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Each segment's pair (b, segments, d, n): what it multiplies a state by, and its own end from zero."""
    b, segment, low, high, part, column, inside, _ = locate(t, d, g, segments, steps, D)
    k = tl.arange(0, N)
    tile, both = column[:, None] * n + k[None, :], inside[:, None] & (k < n)[None, :]
    rates = tl.load(A + tile, both, other=0).to(WIDE) * LOG2_E
    shift = tl.load(bias + column, inside, other=0).to(WIDE) if BIAS else tl.zeros((D,), WIDE)
    h, span, whole = tl.zeros((D, N), WIDE), tl.zeros((D,), WIDE), tl.full((), 1, WIDE)
    for start in range(0, steps, U):
        at = low + start
        raw = read_steps(dt + b * dt_b + column, dt_t, at, high, inside, U, EVEN, WIDE)
        xs = read_steps(u + b * u_b + column, u_t, at, high, inside, U, EVEN, WIDE)
        Bs = read_steps(B + b * B_b + part * B_g + k, B_t, at, high, k < n, U, EVEN, WIDE)
        marks = read_marks(resets, b, t, at, high, U, RESETS)
        deltas = step_sizes(raw, shift, at, high, U, EVEN, SOFTPLUS)
        for j in tl.static_range(U):
            if RESETS:
                h, whole = tl.where(marks[j], 0, h), tl.where(marks[j], 0, whole)
            decay = exp2(deltas[j][:, None] * rates)
            h = decay * h + (deltas[j] * xs[j])[:, None] * Bs[j][None, :]
            span += deltas[j]
    to = (b * segments + segment) * d * n + tile
    tl.store(product + to, exp2(span[:, None] * rates) * whole, both)
    tl.store(value + to, h, both)


@triton.jit(do_not_specialize=VARYING)
def forward(
    u,
    dt,
    A,
    B,
    C,
    skip,
    z,
    bias,
    starts,
    resets,
    y,
    final,
    t,
    d,
    g,
    segments,
    steps,
    u_b,
    u_t,
    dt_b,
    dt_t,
    B_b,
    B_t,
    B_g,
    C_b,
    C_t,
    C_g,
    z_b,
    z_t,
    n: tl.constexpr,
    N: tl.constexpr,
    D: tl.constexpr,
    U: tl.constexpr,
    EVEN: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    SKIP: tl.constexpr,
    GATE: tl.constexpr,
    BIAS: tl.constexpr,
    RESETS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Outputs and final state; ``starts`` (b, segments, d, n) holds the state before each segment."""
    b, segment, low, high, part, column, inside, _ = locate(t, d, g, segments, steps, D)
    k = tl.arange(0, N)
    tile, both = column[:, None] * n + k[None, :], inside[:, None] & (k < n)[None, :]
    rates = tl.load(A + tile, both, other=0).to(WIDE) * LOG2_E
    shift = tl.load(bias + column, inside, other=0).to(WIDE) if BIAS else tl.zeros((D,), WIDE)
    past = tl.load(skip + column, inside, other=0).to(WIDE) if SKIP else tl.zeros((D,), WIDE)
    h = tl.load(starts + (b * segments + segment) * d * n + tile, both, other=0).to(WIDE)
    for start in range(0, steps, U):
        at = low + start
        raw = read_steps(dt + b * dt_b + column, dt_t, at, high, inside, U, EVEN, WIDE)
        xs = read_steps(u + b * u_b + column, u_t, at, high, inside, U, EVEN, WIDE)
        Bs = read_steps(B + b * B_b + part * B_g + k, B_t, at, high, k < n, U, EVEN, WIDE)
        Cs = read_steps(C + b * C_b + part * C_g + k, C_t, at, high, k < n, U, EVEN, WIDE)
        if GATE:
            gates = read_steps(z + b * z_b + column, z_t, at, high, inside, U, EVEN, WIDE)
        marks = read_marks(resets, b, t, at, high, U, RESETS)
        deltas = step_sizes(raw, shift, at, high, U, EVEN, SOFTPLUS)
        outs = ()
        for j in tl.static_range(U):
            if RESETS:
                h = tl.where(marks[j], 0, h)
            decay = exp2(deltas[j][:, None] * rates)
            h = decay * h + (deltas[j] * xs[j])[:, None] * Bs[j][None, :]
            out = tl.sum(h * Cs[j][None, :], 1)
            if SKIP:
                out += past * xs[j]
            if GATE:
                out *= gates[j] * sigmoid(gates[j])
            outs = outs + (out,)
        for j in tl.static_range(U):
            write(y + column, b * t + at + j, d, outs[j], inside & (at + j < high), EVEN)
    if segment == segments - 1:
        tl.store(final + b * d * n + tile, h, both)


@triton.jit(do_not_specialize=VARYING)
def retrace(
    u,
    dt,
    A,
    B,
    C,
    z,
    bias,
    starts,
    resets,
    grad_y,
    trail,
    product,
    value,
    t,
    d,
    g,
    segments,
    steps,
    u_b,
    u_t,
    dt_b,
    dt_t,
    B_b,
    B_t,
    B_g,
    C_b,
    C_t,
    C_g,
    z_b,
    z_t,
    y_b,
    y_t,
    n: tl.constexpr,
    N: tl.constexpr,
    D: tl.constexpr,
    U: tl.constexpr,
    EVEN: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    GATE: tl.constexpr,
    BIAS: tl.constexpr,
    RESETS: tl.constexpr,
    PAIRS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The state before every U steps (b, ceil(t / U), d, n), and with ``PAIRS`` the reversed segments' pairs.

    The gradient of the state before a segment is product times that after it, plus value: the sum over its
    steps of their pulls times all decays from the segment's start on. Pairs lie with the last segment first.
    """
    b, segment, low, high, part, column, inside, _ = locate(t, d, g, segments, steps, D)
    k = tl.arange(0, N)
    tile, both = column[:, None] * n + k[None, :], inside[:, None] & (k < n)[None, :]
    rates = tl.load(A + tile, both, other=0).to(WIDE) * LOG2_E
    shift = tl.load(bias + column, inside, other=0).to(WIDE) if BIAS else tl.zeros((D,), WIDE)
    h = tl.load(starts + (b * segments + segment) * d * n + tile, both, other=0).to(WIDE)
    whole, total = tl.full((D, N), 1, WIDE), tl.zeros((D, N), WIDE)
    groups = tl.cdiv(t, U)
    for start in range(0, steps, U):
        at = low + start
        tl.store(trail + (b * groups + at // U) * d * n + tile, h, both & (at < high))
        raw = read_steps(dt + b * dt_b + column, dt_t, at, high, inside, U, EVEN, WIDE)
        xs = read_steps(u + b * u_b + column, u_t, at, high, inside, U, EVEN, WIDE)
        Bs = read_steps(B + b * B_b + part * B_g + k, B_t, at, high, k < n, U, EVEN, WIDE)
        if PAIRS:
            Cs = read_steps(C + b * C_b + part * C_g + k, C_t, at, high, k < n, U, EVEN, WIDE)
            pulls = read_steps(grad_y + b * y_b + column, y_t, at, high, inside, U, EVEN, WIDE)
            if GATE:
                gates = read_steps(z + b * z_b + column, z_t, at, high, inside, U, EVEN, WIDE)
        marks = read_marks(resets, b, t, at, high, U, RESETS)
        deltas = step_sizes(raw, shift, at, high, U, EVEN, SOFTPLUS)
        for j in tl.static_range(U):
            if RESETS:
                h = tl.where(marks[j], 0, h)
            decay = exp2(deltas[j][:, None] * rates)
            h = decay * h + (deltas[j] * xs[j])[:, None] * Bs[j][None, :]
            if PAIRS:
                whole *= decay
                if RESETS:
                    whole = tl.where(marks[j], 0, whole)
                pull = pulls[j]
                if GATE:
                    pull *= gates[j] * sigmoid(gates[j])
                total += whole * (pull[:, None] * Cs[j][None, :])
    if PAIRS:
        to = (b * segments + segments - 1 - segment) * d * n + tile
        tl.store(product + to, whole, both)
        tl.store(value + to, total, both)


@triton.jit(do_not_specialize=VARYING)
def backward(
    u,
    dt,
    A,
    B,
    C,
    skip,
    z,
    bias,
    ends,
    resets,
    grad_y,
    trail,
    grad_u,
    grad_dt,
    grad_z,
    grad_state,
    part_A,
    part_B,
    part_C,
    part_D,
    part_bias,
    t,
    d,
    g,
    segments,
    steps,
    u_b,
    u_t,
    dt_b,
    dt_t,
    B_b,
    B_t,
    B_g,
    C_b,
    C_t,
    C_g,
    z_b,
    z_t,
    y_b,
    y_t,
    n: tl.constexpr,
    N: tl.constexpr,
    D: tl.constexpr,
    U: tl.constexpr,
    EVEN: tl.constexpr,
    APART: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    SKIP: tl.constexpr,
    GATE: tl.constexpr,
    BIAS: tl.constexpr,
    RESETS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """All gradients; those of A, D and bias apart by row and segment, of B and C by block of channels.

    ``ends`` (b, segments, d, n), last segment first, holds the gradient of the state after each segment.
    ``trail`` holds the state before every APART steps, a multiple of U; those between are gone through again.
    """
    b, segment, low, high, part, column, inside, block = locate(t, d, g, segments, steps, D)
    k = tl.arange(0, N)
    tile, both = column[:, None] * n + k[None, :], inside[:, None] & (k < n)[None, :]
    rates = tl.load(A + tile, both, other=0).to(WIDE) * LOG2_E
    shift = tl.load(bias + column, inside, other=0).to(WIDE) if BIAS else tl.zeros((D,), WIDE)
    past = tl.load(skip + column, inside, other=0).to(WIDE) if SKIP else tl.zeros((D,), WIDE)
    s = tl.load(ends + (b * segments + segments - 1 - segment) * d * n + tile, both, other=0).to(WIDE)
    sum_A, sum_D, sum_bias = tl.zeros((D, N), WIDE), tl.zeros((D,), WIDE), tl.zeros((D,), WIDE)
    groups = tl.cdiv(t, APART)
    blocks = tl.cdiv(d // g, D)
    for start in range(0, steps, U):
        at = low + steps - U - start
        kept = at - (at - low) % APART
        h = tl.load(trail + (b * groups + kept // APART) * d * n + tile, both & (at < high), other=0)
        for early in range(kept, at, U):
            h = advance(
                *(h, rates, shift, u + b * u_b, dt + b * dt_b, B + b * B_b + part * B_g, resets, b, t),
                *(u_t, dt_t, B_t, early, high, column, inside, k, n, U, EVEN, SOFTPLUS, RESETS, WIDE),
            )
        raw = read_steps(dt + b * dt_b + column, dt_t, at, high, inside, U, EVEN, WIDE)
        xs = read_steps(u + b * u_b + column, u_t, at, high, inside, U, EVEN, WIDE)
        Bs = read_steps(B + b * B_b + part * B_g + k, B_t, at, high, k < n, U, EVEN, WIDE)
        Cs = read_steps(C + b * C_b + part * C_g + k, C_t, at, high, k < n, U, EVEN, WIDE)
        pulls = read_steps(grad_y + b * y_b + column, y_t, at, high, inside, U, EVEN, WIDE)
        if GATE:
            gates = read_steps(z + b * z_b + column, z_t, at, high, inside, U, EVEN, WIDE)
        marks = read_marks(resets, b, t, at, high, U, RESETS)
        deltas = step_sizes(raw, shift, at, high, U, EVEN, SOFTPLUS)
        befores, decays, drags, turns = (), (), (), ()
        for j in tl.static_range(U):
            if RESETS:
                h = tl.where(marks[j], 0, h)
            befores = befores + (h,)
            decay = exp2(deltas[j][:, None] * rates)
            decays = decays + (decay,)
            h = decay * h + (deltas[j] * xs[j])[:, None] * Bs[j][None, :]
            if GATE:
                out = tl.sum(h * Cs[j][None, :], 1)
                if SKIP:
                    out += past * xs[j]
                open_ = sigmoid(gates[j])
                turns = turns + (pulls[j] * out * open_ * (1.0 + gates[j] * (1.0 - open_)),)
                drags = drags + (pulls[j] * gates[j] * open_,)
            else:
                drags = drags + (pulls[j],)
        befores = befores + (h,)
        if GATE:
            for j in tl.static_range(U):
                write(grad_z + column, b * t + at + j, d, turns[j], inside & (at + j < high), EVEN)
        # Inputs are read once more, now from the near cache, rather than held in registers since above.
        turned_B, turned_C, grads_u, grads_dt = (), (), (), ()
        for j in tl.static_range(U - 1, -1, -1):
            live = at + j < high
            x = read(u + b * u_b + column, at + j, u_t, inside & live, EVEN, WIDE)
            B_j = read(B + b * B_b + part * B_g + k, at + j, B_t, (k < n) & live, EVEN, WIDE)
            C_j = read(C + b * C_b + part * C_g + k, at + j, C_t, (k < n) & live, EVEN, WIDE)
            pull, delta = drags[j], deltas[j]
            s += pull[:, None] * C_j[None, :]
            if RESETS:
                # What follows a reset was not kept.
                after = decays[j] * befores[j] + (delta * x)[:, None] * B_j[None, :]
            else:
                after = befores[j + 1]
            turned_C = turned_C + (tl.sum(pull[:, None] * after, 0),)
            turned_B = turned_B + (tl.sum(s * (delta * x)[:, None], 0),)
            grad_x = tl.sum(s * B_j[None, :], 1)
            s *= decays[j]
            slope = s * befores[j]
            sum_A += slope * delta[:, None]
            grad_delta = tl.sum(slope * rates, 1) * LN_2 + grad_x * x
            if SOFTPLUS:
                grad_delta *= softplus_slope(delta)
            if RESETS:
                s = tl.where(marks[j], 0, s)
            sum_bias += grad_delta if EVEN else tl.where(live, grad_delta, 0.0)
            sum_D += pull * x
            grads_u = grads_u + (grad_x * delta + pull * past,)
            grads_dt = grads_dt + (grad_delta,)
        for j in tl.static_range(U):
            live = at + j < high
            to = b * t + at + j
            write(grad_u + column, to, d, grads_u[U - 1 - j], inside & live, EVEN)
            write(grad_dt + column, to, d, grads_dt[U - 1 - j], inside & live, EVEN)
            to = ((b * g + part) * blocks + block) * t + at + j
            write(part_B + k, to, n, turned_B[U - 1 - j], (k < n) & live, EVEN)
            write(part_C + k, to, n, turned_C[U - 1 - j], (k < n) & live, EVEN)
    row = b * segments + segment
    tl.store(part_A + row * d * n + tile, sum_A, both)
    if SKIP:
        tl.store(part_D + row * d + column, sum_D, inside)
    if BIAS:
        tl.store(part_bias + row * d + column, sum_bias, inside)
    if segment == 0:
        tl.store(grad_state + b * d * n + tile, s, both)
