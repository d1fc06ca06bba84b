"""Cauchy product in plain PyTorch: a table of reciprocals for a block of nodes, times all numerators at once.

The table is shared by the numerators and made again in the backward, so nothing of size d * n * l is held. A
pole that nearly is a node loses its digits in the difference of the two: where they come in more digits than
the sums are taken in, that difference is taken of two parts each.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

NAME = "torch"

BLOCK = 1 << 20
"""Entries of a table."""


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def coefficients(v: Tensor, poles: Tensor) -> Tensor:
    """2 Re v and -2 Re(v conj(p)), the numerator's factors of i w and 1: (d, 2 q, n), in float64."""
    v, poles = v.double(), poles.double()[:, None]
    return 2 * torch.cat([v[..., 0], -(v[..., 0] * poles[..., 0] + v[..., 1] * poles[..., 1])], 1)


def split(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x as a sum of two parts of a narrower type."""
    high = x.to(dtype)
    return high, (x - high).to(dtype)


def cauchy(v: Tensor, w: Tensor, poles: Tensor) -> Tensor:
    """Arguments as at the door."""
    wide = torch.promote_types(v.dtype, torch.float32)
    with torch.autocast(v.device.type, enabled=False):
        rows = coefficients(v, poles).to(wide)
        size, size_rest = split(torch.linalg.vector_norm(poles.double(), dim=-1), wide)
        node, node_rest = split(w.double(), wide)
        real = poles[..., 0].to(wide)
        step = max(1, BLOCK // max(1, real.numel()))
        parts = []
        for start in range(0, w.shape[0], step):
            part = slice(start, start + step)
            arguments = (rows, real, size, size_rest, node[part], node_rest[part])
            if torch.is_grad_enabled() and w.shape[0] > step:
                parts.append(checkpoint(_block, *arguments, use_reentrant=False))
            else:
                parts.append(_block(*arguments))
    return torch.cat(parts, 2).to(v.dtype)


def _block(rows: Tensor, real: Tensor, size: Tensor, size_rest: Tensor, w: Tensor, w_rest: Tensor) -> Tensor:
    """The sums at some of the nodes, (d, q, l, 2)."""
    apart = (size[..., None] - w) + (size_rest[..., None] - w_rest)
    re, im = apart * (size[..., None] + w), (-2 * real)[..., None] * w
    scale = (re * re + im * im).reciprocal()
    table = torch.cat([re * scale, -im * scale], -1)
    turned, plain = torch.bmm(rows, table).unflatten(-1, (2, w.shape[0])).chunk(2, 1)
    return torch.stack([plain[:, :, 0] - w * turned[:, :, 1], plain[:, :, 1] + w * turned[:, :, 0]], -1)
