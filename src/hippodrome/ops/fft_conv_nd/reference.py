"""Definition of the global convolution over a grid: the direct sum over lags, in float64."""

from itertools import product

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def fft_conv_nd(x: Tensor, kernel: Tensor, origin: tuple[int, ...]) -> Tensor:
    """Arguments as at the door."""
    wide, taps = x.double(), kernel.double()
    y = torch.zeros_like(wide)
    for flat, index in enumerate(product(*(range(size) for size in kernel.shape[1:]))):
        moved = wide
        for axis, (place, zero) in enumerate(zip(index, origin, strict=True), 1):
            moved = _shifted(moved, axis, place - zero)
        y = y + moved * taps.flatten(1)[:, flat]
    return y.to(x.dtype)


def _shifted(x: Tensor, axis: int, lag: int) -> Tensor:
    """x moved by ``lag`` places along an axis, zeros coming in."""
    size = x.shape[axis]
    room = x.new_zeros(*x.shape[:axis], min(abs(lag), size), *x.shape[axis + 1 :])
    if lag >= 0:
        return torch.cat([room, x.narrow(axis, 0, max(size - lag, 0))], axis)
    kept = max(size + lag, 0)
    return torch.cat([x.narrow(axis, size - kept, kept), room], axis)
