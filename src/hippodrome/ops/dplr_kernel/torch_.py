"""Kernel of a diagonal system less one of low rank: Cauchy sums at the roots of unity, then a transform.

With z = exp(-i a) the node is g = (2 / dt) i tan(a / 2), so everything is scaled by dt and the Cauchy sums
run over w = 2 tan(a / 2) with poles dt Lambda: nodes that differ little and poles close to them keep their
digits. Real tensors up to the transform. Channels go through in blocks whose values at all nodes stay small
enough for memory to be used again, and are made again in the backward.
"""

import math

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hippodrome.ops import _pairs
from hippodrome.ops.cauchy import cauchy

NAME = "torch"

BLOCK = 1 << 18
"""Values of kernels in a block of channels."""


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def dplr_kernel(
    poles: Tensor, P: Tensor, Q: Tensor, B: Tensor, C: Tensor, step: Tensor, length: int
) -> Tensor:
    """Arguments as at the door."""
    arguments = (poles, P, Q, B, C, step)
    count = max(1, BLOCK // length)
    if poles.shape[0] <= count:
        return _channels(length, *arguments)
    parts = []
    for start in range(0, poles.shape[0], count):
        some = [x[start : start + count] for x in arguments]
        if torch.is_grad_enabled():
            parts.append(checkpoint(_channels, length, *some, use_reentrant=False))
        else:
            parts.append(_channels(length, *some))
    return torch.cat(parts)


def _channels(length: int, poles: Tensor, P: Tensor, Q: Tensor, B: Tensor, C: Tensor, step: Tensor) -> Tensor:
    """The kernels of some of the channels."""
    wide = torch.promote_types(C.dtype, torch.float32)
    with torch.autocast(C.device.type, enabled=False):
        size = step.double()[:, None, None]
        conjugate = Q.double() * Q.new_tensor([1.0, -1.0])
        left = torch.cat([C.double()[:, None], conjugate], 1)  # d 1+r n 2
        right = size[..., None] * torch.cat([B.double()[:, None], P.double()], 1)
        numerators = _pairs.times(left[:, :, None], right[:, None])
        nodes = torch.arange((length + 1) // 2, device=C.device, dtype=torch.float64)
        w = 2 * torch.tan(math.pi / length * nodes)
        count = left.shape[1]
        sums = cauchy(numerators.flatten(1, 2).to(wide), w, size * poles.double())
        value = _schur([[sums[:, i * count + j] for j in range(count)] for i in range(count)])
        half = 0.5 * w.to(wide)
        re = value[..., 0] - half * value[..., 1]
        im = value[..., 1] + half * value[..., 0]
        if length % 2 == 0:
            # At z = -1 the node is infinite; the limit is dt / 2 times the sum of C B over both halves.
            last = numerators[:, 0, 0, :, 0].sum(-1, keepdim=True).to(wide)
            re, im = torch.cat([re, last], 1), torch.cat([im, torch.zeros_like(last)], 1)
        kernel = torch.fft.irfft(torch.complex(re, im), length)
    return kernel.to(C.dtype)


def _schur(sums: list[list[Tensor]]) -> Tensor:
    """C R B - C R P (1 + Q^* R P)^-1 Q^* R B, eliminating one column after the other.

    For Q = P and poles left of the axis the real part of 1 + P^* R P is at least one, so the order is free.
    """
    one = sums[0][0].new_tensor([1.0, 0.0])
    for k in range(len(sums) - 1, 0, -1):
        # Corrections by later columns are in already: only the diagonal's one is still missing.
        pivot = one + sums[k][k]
        sums = [
            [sums[i][j] - _pairs.over(_pairs.times(sums[i][k], sums[k][j]), pivot) for j in range(k)]
            for i in range(k)
        ]
    return sums[0][0]
