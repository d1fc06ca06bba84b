"""Kernel of S4 at rank 1 on the CPU: custom ops around the fused Numba kernels, and transforms by blocks."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hippodrome.ops import _pairs
from hippodrome.ops._custom import register_second_order
from hippodrome.ops._threads import share_tiles

NAME = "numba"

BLOCK = 1 << 20
"""Values of kernels in a block of channels: few enough for the last cache, and for threads to meet seldom."""
LANES = 16
LARGE = 100.0
"""Size of 1 + Q^* R P from which on float32 has not digits enough: it loses as many as that number has."""


def refusal(*tensors: Tensor | None) -> str | None:
    """Rank 1 on the CPU; half precision is widened at the door."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    columns = tensors[1]
    if columns is not None and columns.shape[1] != 1:
        return f"the Numba kernels know Woodbury's identity at rank 1, and P has rank {columns.shape[1]}."
    return None


def terms(poles: Tensor, P: Tensor, Q: Tensor, B: Tensor, C: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers of every pole, (d, n, 19) as the kernel has them, and the spectrum at z = -1, (d)."""
    size = step.double()[:, None, None]
    p = size * poles.double()
    conjugate = Q.double() * Q.new_tensor([1.0, -1.0], dtype=torch.float64)
    left = torch.cat([C.double()[:, None], conjugate], 1)  # d 2 n 2
    right = size[..., None] * torch.cat([B.double()[:, None], P.double()], 1)
    v = _pairs.times(left[:, :, None], right[:, None]).flatten(1, 2)  # d 4 n 2
    slope, square = -2 * p[:, None, :, 0], p.square().sum(-1)[:, None]
    turned = 2 * v[..., 0]  # the factor of i w, then that of 1
    plain = -2 * (v * p[:, None]).sum(-1)
    fields = [square, torch.zeros_like(square), slope.square(), plain, turned * slope, turned, -plain * slope]
    # At z = -1 the node is infinite; the limit is dt / 2 times the sum of C B over both halves.
    return torch.cat(fields, 1).mT.contiguous(), v[:, 0, :, 0].sum(-1)


def nodes(length: int, like: Tensor) -> Tensor:
    """w at the finite nodes, 2 tan of half an angle, in float64."""
    turns = torch.arange((length + 1) // 2, device=like.device, dtype=torch.float64)
    return 2 * torch.tan(math.pi / length * turns)


def kernels(table: Tensor, limit: Tensor, length: int, wide: bool) -> tuple[Tensor]:
    """What the custom op computes, in plain PyTorch and float64: a table of all poles and nodes."""
    w = nodes(length, table)
    squares = w.square()
    x = table[..., 0, None] - squares
    T = (x * x + table[..., 2, None] * squares).reciprocal()
    X, U = x * T, squares * T
    alpha, beta, gamma, delta = table[..., 3:].mT.unflatten(1, (4, 4)).unbind(1)
    sums = torch.stack([alpha @ X + beta @ U, w * (gamma @ X + delta @ T)], -1)
    both, first, second, small = sums.unbind(1)
    pivot = small + small.new_tensor([1.0, 0.0])
    value = both - _pairs.over(_pairs.times(first, second), pivot)
    half = 0.5 * w
    re = value[..., 0] - half * value[..., 1]
    im = value[..., 1] + half * value[..., 0]
    if length % 2 == 0:
        re = torch.cat([re, limit[:, None]], 1)
        im = torch.cat([im, torch.zeros_like(limit)[:, None]], 1)
    kernel = torch.fft.irfft(torch.complex(re, im), length)
    return (kernel if wide else kernel.float(),)


class _Numbers(NamedTuple):
    """Tables and nodes as the kernels take them, nodes in whole values of sixteen."""

    bound: float
    own: tuple[Any, ...]  # in the kernel's own type: the table, w, w^2 and what rounding took from it
    exact: tuple[Any, ...]  # in float64


def _numbers(table: Tensor, length: int, wide: bool) -> _Numbers:
    w = nodes(length, table)
    # The last node stands again, so that nothing is divided by zero that would not be anyway.
    w = torch.cat([w, w[-1:].expand(-w.shape[0] % LANES)])
    table, squares = table.detach().contiguous(), w.square()
    exact = tuple(x.numpy().reshape(-1) for x in (table, w, squares, torch.zeros_like(w)))
    if wide:
        return _Numbers(math.inf, exact, exact)
    near, near_squares = table.float(), squares.float()
    near[..., 1] = table[..., 0] - near[..., 0].double()
    own = near, w.float(), near_squares, (squares - near_squares.double()).float()
    return _Numbers(LANES * LARGE**2, tuple(x.numpy().reshape(-1) for x in own), exact)


@torch.library.custom_op("hippodrome::dplr_kernel", mutates_args=())
def _forward(table: Tensor, limit: Tensor, length: int, wide: bool) -> Tensor:
    from hippodrome.ops.dplr_kernel import _numba_kernel as kernel

    d, n, _ = table.shape
    numbers = _numbers(table, length, wide)
    out = table.new_empty(d, length, dtype=torch.float64 if wide else torch.float32)
    some = min(d, max(1, BLOCK // length))
    # Sixteen more than the finite nodes, so that the one at infinity has its place.
    spectrum = out.new_empty(some, numbers.own[1].shape[0] + LANES, 2)
    limits, flat = limit.detach().contiguous().numpy(), spectrum.numpy().reshape(-1)
    for start in range(0, d, max(1, some)):
        stop = min(start + some, d)
        share_tiles(
            kernel.forward,
            stop - start,
            start,
            n,
            (length + 1) // 2,
            *numbers,
            limits,
            flat,
        )
        half = torch.view_as_complex(spectrum[: stop - start, : length // 2 + 1])
        out[start:stop] = torch.fft.irfft(half, length)
    return out


@_forward.register_fake
def _(table, limit, length, wide):  # type: ignore[no-untyped-def]
    return table.new_empty(table.shape[0], length, dtype=torch.float64 if wide else torch.float32)


@torch.library.custom_op("hippodrome::dplr_kernel_backward", mutates_args=())
def _backward(grad: Tensor, table: Tensor, limit: Tensor, length: int, wide: bool) -> tuple[Tensor, Tensor]:
    from hippodrome.ops.dplr_kernel import _numba_kernel as kernel

    d, n, _ = table.shape
    numbers = _numbers(table, length, wide)
    g_table, g_limit = table.new_zeros(table.shape), limit.new_zeros(limit.shape)
    some = min(d, max(1, BLOCK // length))
    count = (length + 1) // 2
    given = grad.new_zeros(some, 2, numbers.own[1].shape[0])
    flat, g_flat = given.numpy().reshape(-1), g_table.numpy().reshape(-1)
    for start in range(0, d, max(1, some)):
        stop = min(start + some, d)
        half = torch.view_as_real(torch.fft.rfft(grad[start:stop]))
        # Every node but z = 1 and z = -1 stands for its conjugate too.
        given[: stop - start, :, :count] = half[:, :count].mT * (2 / length)
        given[:, :, 0] *= 0.5
        if length % 2 == 0:
            g_limit[start:stop] = half[:, -1, 0] / length
        share_tiles(kernel.backward, stop - start, start, n, *numbers, flat, g_flat)
    return g_table, g_limit


@_backward.register_fake
def _(grad, table, limit, length, wide):  # type: ignore[no-untyped-def]
    return table.new_empty(table.shape), limit.new_empty(limit.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    table, limit, *ctx.options = inputs
    ctx.save_for_backward(table, limit)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward(grad, *ctx.saved_tensors, *ctx.options), None, None


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, kernels, outputs=1, inputs=2, options=2)


def dplr_kernel(
    poles: Tensor, P: Tensor, Q: Tensor, B: Tensor, C: Tensor, step: Tensor, length: int
) -> Tensor:
    """Arguments as at the door."""
    with torch.autocast(C.device.type, enabled=False):
        table, limit = terms(poles, P, Q, B, C, step)
        return _forward(table, limit, length, C.dtype == torch.float64).to(C.dtype)
