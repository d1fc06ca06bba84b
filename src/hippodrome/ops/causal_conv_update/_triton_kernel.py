"""Triton kernel of one token of the causal convolution: a program takes a block of channels of one row."""

import triton
import triton.language as tl

from hippodrome.ops._fast_kernel import sigmoid


@triton.jit
def update(
    x,
    weight,
    bias,
    state,
    y,
    d,
    x_b,
    W: tl.constexpr,
    BIAS: tl.constexpr,
    SILU: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Shifts state (b, w-1, d) by one token, fills y (b, d); arithmetic in the dtype of the state."""
    b = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < d
    WIDE: tl.constexpr = state.dtype.element_ty
    last = tl.load(x + b * x_b + i, inside, 0).to(WIDE)
    out = last * tl.load(weight + i * W + W - 1, inside, 0).to(WIDE)
    if BIAS:
        out += tl.load(bias + i, inside, 0).to(WIDE)
    window = state + b * (W - 1) * d + i
    for k in tl.static_range(W - 1):
        value = tl.load(window + k * d, inside, 0)
        out += value * tl.load(weight + i * W + k, inside, 0).to(WIDE)
        if k > 0:
            tl.store(window + (k - 1) * d, value, inside)
    if W > 1:
        tl.store(window + (W - 2) * d, last, inside)
    if SILU:
        out *= sigmoid(out)
    tl.store(y + b * d + i, out.to(y.dtype.element_ty), inside)
