"""One token of SSD in PyTorch: any device."""

import torch
from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def ssd_update(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor,
    softplus: bool,
    low: float,
    high: float,
) -> Tensor:
    """The output; arguments as at the door."""
    wide = state.dtype
    u, sizes = x.to(wide), dt.to(wide)
    if dt_bias is not None:
        sizes = sizes + dt_bias.to(wide)
    if softplus:
        sizes = torch.logaddexp(sizes, torch.zeros_like(sizes))
    sizes = sizes.clamp(low, high)
    b, h, p, n = state.shape
    g = B.shape[1]
    B, C = (m.to(wide).view(b, g, 1, 1, n) for m in (B, C))
    state.mul_(torch.exp(sizes * A.to(wide))[..., None, None])
    grouped = state.view(b, g, h // g, p, n)
    grouped.addcmul_((u * sizes[..., None]).view(b, g, h // g, p, 1), B)
    y = (grouped * C).sum(-1).view(b, h, p)
    return (y if D is None else y + D.to(wide)[:, None] * u).to(x.dtype)
