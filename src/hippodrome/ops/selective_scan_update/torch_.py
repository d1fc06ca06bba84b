"""One token of the selective scan in PyTorch: any device."""

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def selective_scan_update(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor,
    softplus: bool,
) -> Tensor:
    """The output; arguments as at the door."""
    wide = state.dtype
    x, sizes = u.to(wide), dt.to(wide)
    if dt_bias is not None:
        sizes = sizes + dt_bias.to(wide)
    if softplus:
        sizes = torch.logaddexp(sizes, torch.zeros_like(sizes))
    b, d, n = state.shape
    g = B.shape[1] if B.dim() == 3 else 1
    B, C = (m.to(wide).view(b, g, 1, n) for m in (B, C))
    state.mul_(torch.exp(sizes[..., None] * A.to(wide)))
    grouped = state.view(b, g, d // g, n)
    grouped.addcmul_((sizes * x).view(b, g, d // g, 1), B)
    y = (grouped * C).sum(-1).view(b, d)
    if D is not None:
        y = y + D.to(wide) * x
    if z is not None:
        y = y * F.silu(z.to(wide))
    return y.to(u.dtype)
