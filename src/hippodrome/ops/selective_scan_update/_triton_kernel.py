"""Triton kernel of one token of the selective scan: a program takes a block of channels of one batch row."""

import triton
import triton.language as tl

from hippodrome.ops._fast_kernel import LOG2_E, exp2, sigmoid, softplus


@triton.jit
def update(
    u,
    dt,
    A,
    B,
    C,
    D,
    z,
    bias,
    state,
    y,
    d,
    n,
    width,
    u_b,
    dt_b,
    z_b,
    B_b,
    B_g,
    C_b,
    C_g,
    SOFTPLUS: tl.constexpr,
    SKIP: tl.constexpr,
    GATE: tl.constexpr,
    BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
    N: tl.constexpr,
):
    """Overwrites state (b, d, n), fills y (b, d); arithmetic in the dtype of the state."""
    b = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    k = tl.arange(0, N)
    inside = i < d
    both = inside[:, None] & (k < n)[None, :]
    WIDE: tl.constexpr = state.dtype.element_ty
    x = tl.load(u + b * u_b + i, inside, 0).to(WIDE)
    delta = tl.load(dt + b * dt_b + i, inside, 0).to(WIDE)
    if BIAS:
        delta += tl.load(bias + i, inside, 0).to(WIDE)
    if SOFTPLUS:
        delta = softplus(delta)
    group = (i // width)[:, None]
    place = state + b * d * n + i[:, None] * n + k[None, :]
    rates = tl.load(A + i[:, None] * n + k[None, :], both, 0).to(WIDE)
    entry = tl.load(B + b * B_b + group * B_g + k[None, :], both, 0).to(WIDE)
    read = tl.load(C + b * C_b + group * C_g + k[None, :], both, 0).to(WIDE)
    h = exp2(delta[:, None] * rates * LOG2_E) * tl.load(place, both, 0) + (delta * x)[:, None] * entry
    tl.store(place, h, both)
    out = tl.sum(h * read, 1)
    if SKIP:
        out += tl.load(D + i, inside, 0).to(WIDE) * x
    if GATE:
        gate = tl.load(z + b * z_b + i, inside, 0).to(WIDE)
        out *= gate * sigmoid(gate)
    tl.store(y + b * d + i, out.to(y.dtype.element_ty), inside)
