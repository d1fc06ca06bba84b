"""Cauchy product in plain PyTorch: a table of reciprocals for a block of nodes, times all numerators at once.

The table is shared by the numerators and made again in the backward, so nothing of size d * n * l is held. A
pole that nearly is a node loses its digits in the difference of the two: where they come in more digits than
the sums are taken in, that difference is taken of two parts each.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

NAME = "torch"

BLOCK = 1 << 20
"""Entries of a table."""


class Terms(NamedTuple):
    """What the sums are made of, in their own type: rows of factors of 1 / (|p|^2 - w^2 + i w slope)."""

    rows: Tensor  # (d, 2 q, n): factors of i w, then of 1
    slope: Tensor  # (d, n): -2 Re p
    size: Tensor  # (d, n): |p|, and what rounding took from it
    size_rest: Tensor
    w: Tensor  # (l), and what rounding took from it
    w_rest: Tensor


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def terms(v: Tensor, w: Tensor, poles: Tensor) -> Terms:
    """The terms of a call in float32 or wider, from the door's arguments in float64."""
    wide = torch.promote_types(v.dtype, torch.float32)
    v, w, poles = v.double(), w.double(), poles.double()
    inner = (v * poles[:, None]).sum(-1)  # Re(v conj(p))
    rows = 2 * torch.cat([v[..., 0], -inner], 1)
    size = torch.linalg.vector_norm(poles, dim=-1)
    near, node = size.to(wide), w.to(wide)
    rest = (size - near).to(wide), (w - node).to(wide)
    return Terms(rows.to(wide), (-2 * poles[..., 0]).to(wide), near, rest[0], node, rest[1])


def sums(
    rows: Tensor, slope: Tensor, size: Tensor, size_rest: Tensor, w: Tensor, w_rest: Tensor
) -> tuple[Tensor]:
    """Every row's sum over the poles, real and imaginary part, (d, 2 q, 2, l)."""
    apart = (size[..., None] - w) + (size_rest[..., None] - w_rest)
    re, im = apart * (size[..., None] + w), slope[..., None] * w
    scale = (re * re + im * im).reciprocal()
    table = torch.cat([re * scale, -im * scale], -1)
    return (torch.bmm(rows, table).unflatten(-1, (2, w.shape[0])),)


def joined(total: Tensor, w: Tensor) -> Tensor:
    """i w times the first half of the sums, plus the second: (d, q, l, 2)."""
    turned, plain = total.chunk(2, 1)
    return torch.stack([plain[:, :, 0] - w * turned[:, :, 1], plain[:, :, 1] + w * turned[:, :, 0]], -1)


def cauchy(v: Tensor, w: Tensor, poles: Tensor) -> Tensor:
    """Arguments as at the door."""
    with torch.autocast(v.device.type, enabled=False):
        whole = terms(v, w, poles)
        step = max(1, BLOCK // max(1, whole.slope.numel()))
        parts = []
        for start in range(0, w.shape[0], step):
            nodes = (x[start : start + step] for x in whole[4:])
            arguments = (*whole[:4], *nodes)
            if torch.is_grad_enabled() and w.shape[0] > step:
                parts.append(checkpoint(sums, *arguments, use_reentrant=False)[0])
            else:
                parts.append(sums(*arguments)[0])
        return joined(torch.cat(parts, -1), whole.w).to(v.dtype)
