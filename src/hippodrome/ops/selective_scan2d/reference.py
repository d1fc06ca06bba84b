"""Definition of the selective scan over a grid, cell by cell in float64: every other backend's oracle."""

from functools import reduce

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def selective_scan2d(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    K: Tensor,
    B: Tensor,
    C: Tensor,
    initial_state: Tensor | None,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs and last states; arguments as at the door."""
    dtype = x.dtype
    given = [z for z in (x, dt, A, K, B, C, initial_state) if z is not None]
    wide = reduce(torch.promote_types, (z.dtype for z in given), torch.float32)
    x, dt, A, K, B, C = (z.double() for z in (x, dt, A, K, B, C))
    b, t, v, _ = x.shape
    start = x.new_zeros(b, v, 2, *A.shape[1:]) if initial_state is None else initial_state.double()
    before = list(start.unbind(1))
    times = []
    for k in range(t):
        if resets is not None:
            before = [torch.where(resets[:, k, None, None, None], 0.0, h) for h in before]
        beside = torch.zeros_like(before[0])
        now, outputs = [], []
        for j in range(v):
            f = torch.expm1(dt[:, k, j, :, :, None] * A)
            held = B[:, k, j, :, None, :] * x[:, k, j, None, :, None] / A
            own = torch.stack([before[j][:, 0], beside[:, 1]], 1)
            other = torch.stack([before[j][:, 1], beside[:, 0]], 1)
            beside = (1 + f) * own + f * (held - K * other)
            now.append(beside)
            outputs.append((C[:, k, j, :, None, :] * beside).sum((1, 3)))
        before = now
        times.append(torch.stack(outputs, 1))
    last = torch.stack(before, 1).to(wide)
    return torch.stack(times, 1).to(dtype), last
