"""Global convolution over a grid by a real Fourier transform in all axes, never narrower than float32."""

import torch
from torch import Tensor

from hippodrome.ops.fft_conv.torch_ import fast_size

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def fft_conv_nd(x: Tensor, kernel: Tensor, origin: tuple[int, ...]) -> Tensor:
    """Arguments as at the door."""
    wide = torch.promote_types(torch.promote_types(x.dtype, kernel.dtype), torch.float32)
    grid = x.shape[1:-1]
    points = [fast_size(g + k - 1) for g, k in zip(grid, kernel.shape[1:], strict=True)]
    axes = list(range(-len(grid), 0))
    with torch.autocast(x.device.type, enabled=False):
        # Channels before the grid: the transform of strided axes costs several times as much.
        spectrum = torch.fft.rfftn(x.to(wide).movedim(-1, 1), points, axes)
        y = torch.fft.irfftn(spectrum * torch.fft.rfftn(kernel.to(wide), points, axes), points, axes)
    for axis, (first, size) in enumerate(zip(origin, grid, strict=True), 2):
        y = y.narrow(axis, first, size)
    return y.movedim(1, -1).to(x.dtype)
