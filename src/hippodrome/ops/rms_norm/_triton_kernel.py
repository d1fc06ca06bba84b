"""Kernels of the root-mean-square norm in Triton: a program takes whole runs of channels, row by row."""

import torch
import triton
import triton.language as tl


def wide(dtype):
    """The type of arithmetic for a dtype of storage."""
    return tl.float64 if dtype == torch.float64 else tl.float32


@triton.jit
def _run(x, rows, stride, d, mask, ACC: tl.constexpr):
    """Some rows of one run of channels."""
    return tl.load(x + rows[:, None] * stride + d[None, :], mask=mask, other=0.0).to(ACC)


@triton.jit(do_not_specialize=["ROWS"])
def forward(
    x,
    weight,
    z,
    y,
    stride_x,
    stride_z,
    ROWS,
    D,
    RUN,
    EPS: tl.constexpr,
    BR: tl.constexpr,
    BD: tl.constexpr,
    GATED: tl.constexpr,
    ACC: tl.constexpr,
):
    """The norm of ``BR`` rows of one run of channels."""
    rows = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    column = tl.arange(0, BD)
    d = tl.program_id(1) * RUN + column
    mask = (rows < ROWS)[:, None] & (column < RUN)[None, :]
    value = _run(x, rows, stride_x, d, mask, ACC)
    if GATED:
        gate = _run(z, rows, stride_z, d, mask, ACC)
        value = value * gate / (1.0 + tl.exp(-gate))
    scale = 1.0 / tl.sqrt(tl.sum(value * value, 1) / RUN + EPS)
    value *= scale[:, None] * tl.load(weight + d, mask=column < RUN, other=0.0).to(ACC)[None, :]
    tl.store(y + rows[:, None] * D + d[None, :], value, mask=mask)


@triton.jit(do_not_specialize=["ROWS"])
def backward(
    grad_y,
    x,
    weight,
    z,
    grad_x,
    grad_z,
    partial,
    stride_y,
    stride_x,
    stride_z,
    ROWS,
    D,
    RUN,
    EPS: tl.constexpr,
    BR: tl.constexpr,
    BD: tl.constexpr,
    GATED: tl.constexpr,
    ACC: tl.constexpr,
):
    """Gradients of some rows of one run of channels, and their part of the gradient to the weights."""
    column = tl.arange(0, BD)
    d = tl.program_id(1) * RUN + column
    taken = column < RUN
    weights = tl.load(weight + d, mask=taken, other=0.0).to(ACC)[None, :]
    to_weight = tl.zeros([BD], ACC)
    for first in range(tl.program_id(0) * BR, ROWS, tl.num_programs(0) * BR):
        rows = tl.program_id(0).to(tl.int64) * 0 + first + tl.arange(0, BR)
        mask = (rows < ROWS)[:, None] & taken[None, :]
        given = _run(x, rows, stride_x, d, mask, ACC)
        slope = _run(grad_y, rows, stride_y, d, mask, ACC)
        value = given
        if GATED:
            gate = _run(z, rows, stride_z, d, mask, ACC)
            share = 1.0 / (1.0 + tl.exp(-gate))
            value = given * gate * share
        scale = 1.0 / tl.sqrt(tl.sum(value * value, 1) / RUN + EPS)
        scale = tl.where(rows < ROWS, scale, 0.0)  # that of no row is infinite where eps is zero
        normal = value * scale[:, None]
        to_weight += tl.sum(slope * normal, 0)
        slope *= weights
        slope = (slope - normal * (tl.sum(slope * normal, 1) / RUN)[:, None]) * scale[:, None]
        cell = rows[:, None] * D + d[None, :]
        if GATED:
            tl.store(grad_z + cell, slope * given * share * (1.0 + gate * (1.0 - share)), mask=mask)
            slope *= gate * share
        tl.store(grad_x + cell, slope, mask=mask)
    tl.store(partial + tl.program_id(0).to(tl.int64) * D + d, to_weight, mask=taken)
