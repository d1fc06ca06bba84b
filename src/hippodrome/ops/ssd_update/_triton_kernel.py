"""Triton kernel of one token of SSD: a program takes a block of the rows of one head's state."""

import triton
import triton.language as tl

from hippodrome.ops._fast_kernel import LOG2_E, exp2, softplus


@triton.jit
def update(
    x,
    dt,
    A,
    B,
    C,
    D,
    bias,
    state,
    y,
    h,
    p,
    n,
    per,
    low,
    high,
    x_b,
    x_h,
    dt_b,
    B_b,
    B_g,
    C_b,
    C_g,
    SOFTPLUS: tl.constexpr,
    SKIP: tl.constexpr,
    BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
    N: tl.constexpr,
):
    """Overwrites state (b, h, p, n), fills y (b, h, p); arithmetic in the dtype of the state."""
    b, head = tl.program_id(2).to(tl.int64), tl.program_id(1)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    k = tl.arange(0, N)
    inside, filled = i < p, k < n
    both = inside[:, None] & filled[None, :]
    WIDE: tl.constexpr = state.dtype.element_ty
    size = tl.load(dt + b * dt_b + head).to(WIDE)
    if BIAS:
        size += tl.load(bias + head).to(WIDE)
    if SOFTPLUS:
        size = softplus(size)
    # Written so that NaN passes: each comparison is false for it.
    size = tl.where(size < low, low, size)
    size = tl.where(size > high, high, size).to(WIDE)
    decay = exp2(size * tl.load(A + head).to(WIDE) * LOG2_E)
    group = head // per
    u = tl.load(x + b * x_b + head * x_h + i, inside, 0).to(WIDE)
    entry = tl.load(B + b * B_b + group * B_g + k, filled, 0).to(WIDE)
    read = tl.load(C + b * C_b + group * C_g + k, filled, 0).to(WIDE)
    place = state + ((b * h + head) * p + i[:, None]) * n + k[None, :]
    S = tl.load(place, both, 0) * decay + (u * size)[:, None] * entry[None, :]
    tl.store(place, S, both)
    out = tl.sum(S * read[None, :], 1)
    if SKIP:
        out += tl.load(D + head).to(WIDE) * u
    tl.store(y + (b * h + head) * p + i, out.to(y.dtype.element_ty), inside)
