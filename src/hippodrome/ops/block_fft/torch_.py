"""The block transform in PyTorch: a matrix product over each digit of time, twiddle factors between them."""

import math

import torch
from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def block_fft(x: Tensor, matrices: tuple[Tensor, ...], inverse: bool) -> Tensor:
    """Arguments as at the door."""
    b, n, d, _ = x.shape
    wide = torch.promote_types(x.dtype, torch.float32)
    for matrix in matrices:
        wide = torch.promote_types(wide, matrix.dtype)
    sizes = [m.shape[0] for m in matrices]
    with torch.autocast(x.device.type, enabled=False):
        y = torch.view_as_complex(x.to(wide).contiguous())
        length, groups = n, b
        for matrix in matrices:
            m = matrix.shape[0]
            rest = length // m
            small = torch.view_as_complex(matrix.to(wide).contiguous())
            # Every group of the digits that are done already is transformed along its leading digit.
            y = small @ y.reshape(groups, m, rest * d)
            if rest > 1:
                y = y.view(groups, m, rest, d) * _twiddles(m, rest, inverse, y)[..., None]
            groups, length = groups * m, rest
        # The digits came out in the order in which they were done, the last one done counting most.
        y = y.reshape(b, *sizes, d).permute(0, *range(len(sizes), 0, -1), len(sizes) + 1).reshape(b, n, d)
        y = torch.view_as_real(y)
        return y / n if inverse else y


def _twiddles(m: int, rest: int, inverse: bool, like: Tensor) -> Tensor:
    """e^(-2 pi i k j / (m rest)) for k < m and j < rest, (m, rest)."""
    k = torch.arange(m, device=like.device, dtype=torch.float64)
    j = torch.arange(rest, device=like.device, dtype=torch.float64)
    angle = (2 * math.pi if inverse else -2 * math.pi) / (m * rest) * k[:, None] * j
    return torch.polar(torch.ones_like(angle), angle).to(like.dtype)
