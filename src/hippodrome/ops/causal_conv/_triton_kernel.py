"""Kernels of the causal convolution in Triton: tiles of tokens by channels, a shifted read for each tap.

A tap ``lag`` tokens back is seen by token t when none of the tokens t - lag + 1 to t is a reset; each shifted
read after the first comes from the cache. Tokens before the first are those of the initial window.
"""

import torch
import triton
import triton.language as tl


def wide(dtype):
    """The type of arithmetic for a dtype of storage."""
    return tl.float64 if dtype == torch.float64 else tl.float32


@triton.jit
def _token(x, past, stride, first, i, d, seen, D, W, ACC: tl.constexpr):
    """Raw inputs of tokens first + i, the initial window's before token 0; zero where not seen.

    ``x`` points at token ``first``, so that offsets inside a tile are of 32 bits.
    """
    t = first + i
    columns = (d < D)[None, :]
    inner = tl.load(
        x + i[:, None] * stride + d[None, :], mask=(seen & (t >= 0))[:, None] & columns, other=0.0
    )
    outer = seen & (t < 0) & (t >= 1 - W)
    before = tl.load(past + (t + W - 1)[:, None] * D + d[None, :], mask=outer[:, None] & columns, other=0.0)
    return inner.to(ACC) + before.to(ACC)


@triton.jit
def _taps(weight, stride_wd, stride_ww, lag, d, D, W, ACC: tl.constexpr):
    """The weights, one of each channel, of the tap ``lag`` tokens back."""
    return tl.load(weight + d * stride_wd + (W - 1 - lag) * stride_ww, mask=d < D, other=0.0).to(ACC)[None, :]


@triton.jit
def _fresh(resets, t, T, HAS_RESETS: tl.constexpr):
    """Whether tokens t, of which some may lie outside, see what came before them."""
    if HAS_RESETS:
        return tl.load(resets + t, mask=(t >= 0) & (t < T), other=0) == 0
    return t == t


@triton.jit
def _convolved(
    x,
    weight,
    bias,
    past,
    resets,
    stride_wd,
    stride_ww,
    stride,
    first,
    i,
    d,
    T,
    D,
    W: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
):
    """The convolution at tokens first + i with the bias, before the activation."""
    t = first + i
    inside = (t >= 0) & (t < T)
    total = (
        tl.zeros([i.shape[0], d.shape[0]], ACC) + tl.load(bias + d, mask=d < D, other=0.0).to(ACC)[None, :]
    )
    seen = inside
    for lag in tl.range(0, W, loop_unroll_factor=4):
        taps = _taps(weight, stride_wd, stride_ww, lag, d, D, W, ACC)
        total += taps * _token(x, past, stride, first, i - lag, d, seen, D, W, ACC)
        seen = seen & _fresh(resets, t - lag, T, HAS_RESETS)
    return total


@triton.jit(do_not_specialize=["T"])
def forward(
    x,
    weight,
    bias,
    past,
    resets,
    y,
    last,
    stride_wd,
    stride_ww,
    stride_b,
    stride_t,
    T,
    D,
    W: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    SILU: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Outputs of one tile; the program of the last tokens also writes the final window."""
    spans = tl.cdiv(T, BT)
    b = (tl.program_id(0) // spans).to(tl.int64)
    first = (tl.program_id(0) % spans) * BT
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    i = tl.arange(0, BT)
    t = first + i
    x += b * stride_b + first.to(tl.int64) * stride_t
    y += (b * T + first) * D
    past += b * (W - 1) * D
    resets += b * T
    total = _convolved(
        x, weight, bias, past, resets, stride_wd, stride_ww, stride_t, first, i, d, T, D, W, HAS_RESETS, ACC
    )
    if SILU:
        total = total / (1.0 + tl.exp(-total))
    tl.store(y + i[:, None] * D + d[None, :], total, mask=(t < T)[:, None] & (d < D)[None, :])
    if first + BT >= T:
        end = T - 1 - first + tl.arange(0, 1)
        seen = end >= 0
        for lag in range(W - 1):
            value = _token(x, past, stride_t, first, end - lag, d, seen, D, W, ACC)
            place = last + (b * (W - 1) + W - 2 - lag) * D + d[None, :]
            tl.store(place, value, mask=(d < D)[None, :])
            seen = seen & _fresh(resets, first + end - lag, T, HAS_RESETS)


@triton.jit
def _slope(
    grad_y,
    x,
    weight,
    bias,
    past,
    resets,
    stride_wd,
    stride_ww,
    stride_y,
    stride,
    first,
    i,
    d,
    T,
    D,
    W: tl.constexpr,
    SILU: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
):
    """The gradient before the activation at tokens first + i of both pointers; zero outside."""
    t = first + i
    mask = ((t >= 0) & (t < T))[:, None] & (d < D)[None, :]
    slope = tl.load(grad_y + i[:, None] * stride_y + d[None, :], mask=mask, other=0.0).to(ACC)
    if SILU:
        total = _convolved(
            x, weight, bias, past, resets, stride_wd, stride_ww, stride, first, i, d, T, D, W, HAS_RESETS, ACC
        )
        share = 1.0 / (1.0 + tl.exp(-total))
        slope *= share * (1.0 + total * (1.0 - share))
    return slope


@triton.jit(do_not_specialize=["T"])
def slopes(
    grad_y,
    x,
    weight,
    bias,
    past,
    resets,
    slope,
    stride_wd,
    stride_ww,
    stride_yb,
    stride_yt,
    stride_b,
    stride_t,
    T,
    D,
    W: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
):
    """The gradient before silu of one tile, where it pays to form it once rather than for each tap."""
    spans = tl.cdiv(T, BT)
    b = (tl.program_id(0) // spans).to(tl.int64)
    first = (tl.program_id(0) % spans) * BT
    i = tl.arange(0, BT)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    x += b * stride_b + first.to(tl.int64) * stride_t
    grad_y += b * stride_yb + first.to(tl.int64) * stride_yt
    slope += (b * T + first) * D
    past += b * (W - 1) * D
    resets += b * T
    found = _slope(
        grad_y,
        x,
        weight,
        bias,
        past,
        resets,
        stride_wd,
        stride_ww,
        stride_yt,
        stride_t,
        first,
        i,
        d,
        T,
        D,
        W,
        True,
        HAS_RESETS,
        ACC,
    )
    mask = (first + i < T)[:, None] & (d < D)[None, :]
    tl.store(slope + i[:, None] * D + d[None, :], found, mask=mask)


@triton.jit(do_not_specialize=["T"])
def backward(
    grad_y,
    grad_last,
    x,
    weight,
    bias,
    past,
    resets,
    grad_x,
    grad_past,
    partial,
    stride_wd,
    stride_ww,
    stride_yb,
    stride_yt,
    stride_b,
    stride_t,
    T,
    D,
    W: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    SILU: tl.constexpr,
    HAS_RESETS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Gradients of one tile of tokens, the initial window's among them, and its part of those to the taps.

    ``partial`` (tiles, W + 1, D) gets the gradients of the taps, oldest first, and of the bias.
    """
    spans = tl.cdiv(T + W - 1, BT)
    b = (tl.program_id(0) // spans).to(tl.int64)
    first = (tl.program_id(0) % spans) * BT - (W - 1)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    i = tl.arange(0, BT)
    t = first + i
    columns = (d < D)[None, :]
    x += b * stride_b + first.to(tl.int64) * stride_t
    grad_y += b * stride_yb + first.to(tl.int64) * stride_yt
    grad_x += (b * T + first) * D
    past += b * (W - 1) * D
    grad_past += b * (W - 1) * D
    grad_last += b * (W - 1) * D
    resets += b * T
    partial += tl.program_id(0).to(tl.int64) * (W + 1) * D

    # What later tokens take of these.
    own = tl.zeros([BT, BD], ACC)
    total = tl.zeros([BT, BD], ACC)
    seen = t < T
    for lag in range(W):
        if lag > 0:
            seen = seen & _fresh(resets, t + lag, T, HAS_RESETS)
        slope = _slope(
            grad_y,
            x,
            weight,
            bias,
            past,
            resets,
            stride_wd,
            stride_ww,
            stride_yt,
            stride_t,
            first,
            i + lag,
            d,
            T,
            D,
            W,
            SILU,
            HAS_RESETS,
            ACC,
        )
        if lag == 0:
            own = slope
        taps = _taps(weight, stride_wd, stride_ww, lag, d, D, W, ACC)
        total += tl.where(seen[:, None], slope, 0.0) * taps
    # What the final window takes of the last: those that no reset cuts off from the end, which ``seen`` now
    # says of them, as no token after the end counts for one.
    ends = t - (T - W + 1)
    mask = (seen & (ends >= 0) & (ends < W - 1))[:, None] & columns
    total += tl.load(grad_last + ends[:, None] * D + d[None, :], mask=mask, other=0.0).to(ACC)
    inside = (t >= 0) & (t < T)
    tl.store(grad_x + i[:, None] * D + d[None, :], total, mask=inside[:, None] & columns)
    early = (t < 0)[:, None] & columns
    tl.store(grad_past + (t + W - 1)[:, None] * D + d[None, :], total, mask=early)

    tl.store(partial + W * D + d, tl.sum(own, 0), mask=d < D)
    seen = inside
    for lag in range(W):
        value = own * _token(x, past, stride_t, first, i - lag, d, seen, D, W, ACC)
        tl.store(partial + (W - 1 - lag) * D + d, tl.sum(value, 0), mask=d < D)
        seen = seen & _fresh(resets, t - lag, T, HAS_RESETS)
