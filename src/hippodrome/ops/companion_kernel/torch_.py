"""Companion kernel in plain PyTorch: the generating function as a power series, by fast Fourier transforms.

With R = (1 - z S)^-1, whose quadratic forms are polynomials of degree n - 1, and the identity of Sherman and
Morrison,

    sum_l z^l c A^l b = c R b + z (c R a) (e_n R b) / (1 - z e_n R a).

c R b has the coefficients sum_j c_{j+m} b_j, a correlation; e_n R a is a read backwards. The quotient is a
series with a constant term of one, inverted by Newton's method g <- g (2 - f g), which doubles the number of
right coefficients each time (Brent, Kung 1978, "Fast algorithms for manipulating formal power series").
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.ops.fft_conv.torch_ import fast_size

NAME = "torch"

FIRST = 16
"""Coefficients of the inverse series that are found one after the other."""


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def product(f: Tensor, g: Tensor, length: int) -> Tensor:
    """The first ``length`` coefficients of a product of polynomials along the last axis, zero padded."""
    f, g = f[..., :length], g[..., :length]
    whole = f.shape[-1] + g.shape[-1] - 1
    points = fast_size(whole)
    found = torch.fft.irfft(torch.fft.rfft(f, points) * torch.fft.rfft(g, points), points)
    return F.pad(found[..., : min(length, whole)], (0, max(0, length - whole)))


def inverse(f: Tensor, length: int) -> Tensor:
    """The first ``length`` coefficients of 1 / f along the last axis, for f with a constant term of one."""
    f = F.pad(f[..., :length], (0, max(0, length - f.shape[-1])))
    found = torch.ones_like(f[..., :1])
    for i in range(1, min(FIRST, length)):
        found = torch.cat([found, -(f[..., 1 : i + 1].flip(-1) * found).sum(-1, keepdim=True)], -1)
    while found.shape[-1] < length:
        size = min(length, 2 * found.shape[-1])
        error = product(f[..., :size], found, size)
        change = product(found, error[..., found.shape[-1] :], size - found.shape[-1])
        found = torch.cat([found, -change], -1)
    return found


def correlation(c: Tensor, b: Tensor) -> Tensor:
    """sum_j c_{j+m} b_j for m = 0 .. n - 1 along the last axis."""
    n = b.shape[-1]
    return product(c, b.flip(-1), 2 * n - 1)[..., n - 1 :]


def companion_kernel(a: Tensor, b: Tensor, c: Tensor, length: int) -> Tensor:
    """Arguments as at the door."""
    dtype = c.dtype
    with torch.autocast(c.device.type, enabled=False):
        a, b, c = a.double(), b.double(), c.double()
        first = correlation(c, b[:, None])[..., :length]
        first = F.pad(first, (0, length - first.shape[-1]))
        if length == 1:
            return first.to(dtype)
        below = torch.cat([torch.ones_like(a[:, :1]), -a.flip(-1)], -1)
        through = product(b.flip(-1), inverse(below, length - 1), length - 1)
        later = product(correlation(c, a[:, None]), through[:, None], length - 1)
        return (first + F.pad(later, (1, 0))).to(dtype)
