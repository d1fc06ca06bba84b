"""Convolutional scan in PyTorch: convolutions of all frames at once, and one linear scan of all points."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.ops import _pairs
from hippodrome.ops.linear_scan_complex import linear_scan_complex

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def convolve(frames: Tensor, weight: Tensor) -> Tensor:
    """Frames (..., i, j, d) under real taps (m, d, k, k), zeros outside, to (..., i, j, m).

    Channels stay innermost: PyTorch calls that layout channels-last, and its convolutions are made for it.
    """
    batch = frames.flatten(0, -4).permute(0, 3, 1, 2)
    weight = weight.contiguous(memory_format=torch.channels_last)
    y = F.conv2d(batch, weight, padding=weight.shape[-1] // 2).permute(0, 2, 3, 1)
    return y.reshape(*frames.shape[:-1], weight.shape[0])


def taps_in(B: Tensor) -> Tensor:
    """Complex taps (n, d, k, k, 2) as real ones whose outputs are pairs side by side, (2n, d, k, k)."""
    return B.movedim(-1, 1).flatten(0, 1)


def taps_out(C: Tensor) -> Tensor:
    """Complex taps (o, n, w, w, 2) as real ones over pairs side by side: 2 Re C * x, (o, 2n, w, w)."""
    return 2 * torch.stack([C[..., 0], -C[..., 1]], 2).flatten(1, 2)


def conv_scan(
    u: Tensor,
    a: Tensor,
    gain: Tensor,
    B: Tensor,
    C: Tensor,
    initial_state: Tensor | None,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs and last state; arguments as at the door."""
    dtype = u.dtype
    wide = torch.promote_types(dtype, torch.float32)
    b, t, i, j, _ = u.shape
    n = B.shape[0]
    with torch.autocast(u.device.type, enabled=False):
        u, a, gain, B, C = (z.to(wide) for z in (u, a, gain, B, C))
        if a.dim() == 2:
            written = convolve(u, taps_in(_pairs.times(gain[:, None, None, None], B))).unflatten(-1, (n, 2))
            decay = a.expand(i * j, n, 2).reshape(-1, 2)
        else:
            written = convolve(u, taps_in(B)).unflatten(-1, (n, 2))
            written = _pairs.times(gain[:, :, None, None], written)
            decay = a[:, :, None].expand(b, t, i * j, n, 2).flatten(2, 3)
        state = None if initial_state is None else initial_state.to(wide).flatten(1, 3)
        x, last = linear_scan_complex(decay, written.flatten(2, 4), state, resets)
        y = convolve(x.view(b, t, i, j, 2 * n), taps_out(C))
    return y.to(dtype), last.view(b, i, j, n, 2)
