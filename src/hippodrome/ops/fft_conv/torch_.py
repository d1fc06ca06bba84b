"""Causal long convolution by real fast Fourier transforms, zero padded, never narrower than float32."""

import torch
from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def fft_conv(x: Tensor, kernel: Tensor) -> Tensor:
    """Arguments as at the door."""
    t = x.shape[1]
    wide = torch.promote_types(torch.promote_types(x.dtype, kernel.dtype), torch.float32)
    taps = kernel[:, :t].to(wide)
    points = fast_size(t + taps.shape[1])
    with torch.autocast(x.device.type, enabled=False):
        # Time innermost: the transform of a strided axis costs several times as much.
        spectrum = torch.fft.rfft(x.to(wide).transpose(1, 2), points)
        y = torch.fft.irfft(spectrum * torch.fft.rfft(taps, points), points)[..., :t]
    return y.transpose(1, 2).to(x.dtype)


def fast_size(points: int) -> int:
    """The smallest 2^i, 3 * 2^i or 5 * 2^i that is not below ``points``: fast in every library."""
    best = 1 << max(points - 1, 1).bit_length()
    for factor in (3, 5):
        size = factor
        while size < points:
            size *= 2
        best = min(best, size)
    return best
