"""Root-mean-square norm in plain PyTorch: any device, differentiable at will."""

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def rms_norm(x: Tensor, weight: Tensor, z: Tensor | None, eps: float, groups: int) -> Tensor:
    """The norm; arguments as at the door."""
    wide = torch.promote_types(x.dtype, torch.float32)
    v = x.to(wide) if z is None else x.to(wide) * F.silu(z.to(wide))
    if groups == 1:
        return F.rms_norm(v, weight.shape, weight.to(wide), eps).to(x.dtype)
    runs = v.unflatten(-1, (groups, -1))
    return (F.rms_norm(runs, runs.shape[-1:], None, eps).flatten(-2) * weight.to(wide)).to(x.dtype)
