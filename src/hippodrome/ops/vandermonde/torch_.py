"""Vandermonde product in plain PyTorch, factored: length = rows x columns, two small tables and a product.

a^(m i + j) = a^(m i) a^j, so the kernel seen as a matrix of ``rows`` x m is a product of two real tables with
about sqrt(length) powers each; nothing of size (d, n, length) is ever formed.
"""

import math

import torch
from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def powers(log_a: Tensor, exponents: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of exp(log_a * j), (..., j), computed in float64: float32 loses the phase."""
    log_a = log_a.double()
    scale = torch.exp(log_a[..., 0, None] * exponents)
    angle = log_a[..., 1, None] * exponents
    return scale * torch.cos(angle), scale * torch.sin(angle)


def vandermonde(log_a: Tensor, c: Tensor, length: int) -> Tensor:
    """Arguments as at the door."""
    wide = torch.promote_types(torch.promote_types(log_a.dtype, c.dtype), torch.float32)
    columns = max(1, math.isqrt(length - 1) + 1)
    rows = -(-length // columns)
    steps = torch.arange(columns, device=c.device, dtype=torch.float64)
    fine = torch.cat(powers(log_a, steps), -2).to(wide)  # d 2n columns
    jump_re, jump_im = powers(log_a, torch.arange(rows, device=c.device, dtype=torch.float64) * columns)
    c_re, c_im = c[..., 0, None].double(), c[..., 1, None].double()
    coarse = torch.cat([c_re * jump_re - c_im * jump_im, -(c_re * jump_im + c_im * jump_re)], -2).to(wide)
    with torch.autocast(c.device.type, enabled=False):
        kernel = torch.bmm(coarse.transpose(1, 2), fine)
    return kernel.flatten(1)[:, :length].to(c.dtype)
