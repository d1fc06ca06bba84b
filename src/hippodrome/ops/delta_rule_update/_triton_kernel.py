"""Triton kernel of one token of the delta rule: a program takes a block of columns of one head's state."""

import triton
import triton.language as tl

from hippodrome.ops._fast_kernel import LOG2_E, exp2


@triton.jit
def update(
    q,
    k,
    v,
    betas,
    logs,
    state,
    y,
    h,
    keys,
    values,
    q_b,
    q_h,
    k_b,
    k_h,
    v_b,
    v_h,
    beta_b,
    g_b,
    GATE: tl.constexpr,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Overwrites state (b, h, k, v), fills y (b, h, v); arithmetic in the dtype of the state."""
    b, head = tl.program_id(2).to(tl.int64), tl.program_id(1)
    i, j = tl.arange(0, K), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    filled, inside = i < keys, j < values
    both = filled[:, None] & inside[None, :]
    WIDE: tl.constexpr = state.dtype.element_ty
    query = tl.load(q + b * q_b + head * q_h + i, filled, 0).to(WIDE)
    key = tl.load(k + b * k_b + head * k_h + i, filled, 0).to(WIDE)
    value = tl.load(v + b * v_b + head * v_h + j, inside, 0).to(WIDE)
    beta = tl.load(betas + b * beta_b + head).to(WIDE)
    place = state + ((b * h + head) * keys + i[:, None]) * values + j[None, :]
    S = tl.load(place, both, 0)
    if GATE:
        S *= exp2(tl.load(logs + b * g_b + head).to(WIDE) * LOG2_E)
    write = beta * (value - tl.sum(S * key[:, None], 0))
    S += key[:, None] * write[None, :]
    tl.store(place, S, both)
    out = tl.sum(S * query[:, None], 0)
    tl.store(y + (b * h + head) * values + j, out.to(y.dtype.element_ty), inside)
