"""Definition of the convolutional scan, one step at a time in float64: the oracle of every other backend."""

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def _convolve(taps: Tensor, frame: Tensor) -> Tensor:
    """Tap by tap: taps (m, d, k, k) over a frame (b, i, j, d), to (b, i, j, m)."""
    k = taps.shape[2]
    i, j = frame.shape[1:3]
    wide = F.pad(frame, (0, 0, k // 2, k // 2, k // 2, k // 2))
    found = frame.new_zeros(*frame.shape[:3], taps.shape[0])
    for r in range(k):
        for s in range(k):
            found = found + torch.einsum("bijd,md->bijm", wide[:, r : r + i, s : s + j], taps[..., r, s])
    return found


def _product(a: Tensor, x: Tensor) -> Tensor:
    real = a[..., 0] * x[..., 0] - a[..., 1] * x[..., 1]
    imaginary = a[..., 0] * x[..., 1] + a[..., 1] * x[..., 0]
    return torch.stack([real, imaginary], -1)


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
    u, a, gain, B, C = (z.double() for z in (u, a, gain, B, C))
    b, t, i, j, _ = u.shape
    x = u.new_zeros(b, i, j, B.shape[0], 2) if initial_state is None else initial_state.double()
    outputs = []
    for k in range(t):
        if resets is not None:
            x = torch.where(resets[:, k, None, None, None, None], 0.0, x)
        now, size = (z if z.dim() == 2 else z[:, k, None, None] for z in (a, gain))
        written = torch.stack([_convolve(B[..., 0], u[:, k]), _convolve(B[..., 1], u[:, k])], -1)
        x = _product(now, x) + _product(size, written)
        outputs.append(2 * (_convolve(C[..., 0], x[..., 0]) - _convolve(C[..., 1], x[..., 1])))
    return torch.stack(outputs, 1).to(dtype), x.to(torch.promote_types(dtype, torch.float32))
