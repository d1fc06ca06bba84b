"""Selective scan over a grid in PyTorch: its coefficients written out, then the scan over a grid."""

from functools import reduce

import torch
from torch import Tensor

from hippodrome.ops.scan2d import torch_ as grid

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
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
    x, dt, A, K, B, C = (z.to(wide) for z in (x, dt, A, K, B, C))
    with torch.autocast(x.device.type, enabled=False):
        fall = torch.expm1(dt[..., None] * A)  # b t v 2 d n
        own, other = 1 + fall, -fall * K
        a = torch.stack([own[..., 0, :, :], *other.unbind(-3), own[..., 1, :, :]], -3).flatten(-2)
        # One vector for all channels: the product of matrices is faster than that of broadcast numbers.
        u = (fall * A.reciprocal() * torch.matmul(x[..., None, :, None], B[..., None, :])).flatten(-2)
        start = None if initial_state is None else initial_state.to(wide).flatten(-2)
        h, last = grid.scan2d(a, u, start, None, resets)
        y = torch.matmul(h.unflatten(-1, A.shape[1:]), C[..., None])[..., 0].sum(-2)
    return y.to(dtype), last.unflatten(-1, A.shape[1:])
