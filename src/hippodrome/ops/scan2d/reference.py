"""Definition of the scan over a grid, cell by cell in float64: the oracle every other backend is held to."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def scan2d(
    a: Tensor, u: Tensor, initial_state: Tensor | None, edge: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States and those of the last time; arguments as at the door."""
    dtype = u.dtype
    a, u = a.double(), u.double()
    b, t, v, _, d = u.shape
    nothing = u.new_zeros(b, d)
    start = u.new_zeros(b, v, 2, d) if initial_state is None else initial_state.double()
    before = [(start[:, j, 0], start[:, j, 1]) for j in range(v)]
    times = []
    for k in range(t):
        if resets is not None:
            fresh = resets[:, k, None]
            before = [(torch.where(fresh, 0.0, h1), torch.where(fresh, 0.0, h2)) for h1, h2 in before]
        beside = (nothing, nothing) if edge is None else (edge[:, k, 0].double(), edge[:, k, 1].double())
        now = []
        for j in range(v):
            a1, a2, a3, a4 = (a if a.dim() == 2 else a[:, k, j].movedim(1, 0)).unbind(0)
            h1 = a1 * before[j][0] + a2 * before[j][1] + u[:, k, j, 0]
            h2 = a3 * beside[0] + a4 * beside[1] + u[:, k, j, 1]
            beside = (h1, h2)
            now.append(beside)
        before = now
        times.append(torch.stack([torch.stack(cell, 1) for cell in now], 1))
    return torch.stack(times, 1).to(dtype), times[-1].to(torch.promote_types(dtype, torch.float32))
