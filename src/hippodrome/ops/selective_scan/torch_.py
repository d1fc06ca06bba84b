"""Selective scan in plain PyTorch: all exponentials at once, then a log-depth scan; any device."""

import torch
from torch import Tensor

from hippodrome.ops.linear_scan.torch_ import scan

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def selective_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    resets: Tensor | None,
    softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Outputs and final state; arguments as at the door."""
    dtype = u.dtype
    wide = torch.promote_types(dtype, torch.float32)
    u, dt, A, B, C = u.to(wide), dt.to(wide), A.to(wide), B.to(wide), C.to(wide)
    b, t, d = u.shape
    if B.dim() == 3:
        B, C = B[:, :, None], C[:, :, None]
    g, n = B.shape[2:]
    if dt_bias is not None:
        dt = dt + dt_bias.to(wide)
    if softplus:
        dt = torch.logaddexp(dt, torch.zeros_like(dt))
    # Channels as (g, d/g), so that the groups of B and C meet theirs by broadcasting.
    decay = torch.exp(dt[..., None] * A).view(b, t, g, d // g, n)
    x = (dt * u).view(b, t, g, d // g, 1) * B[:, :, :, None]
    if initial_state is not None:
        state = initial_state.to(wide)
        if resets is not None:
            state = torch.where(resets[:, 0, None, None], 0.0, state)
        first = x[:, :1] + decay[:, :1] * state.view(b, 1, g, d // g, n)
        x = torch.cat([first, x[:, 1:]], 1)
    if resets is not None:
        decay = torch.where(resets[:, :, None, None, None], 0.0, decay)
    h = scan(decay, x)
    y = (h * C[:, :, :, None]).sum(-1).view(b, t, d)
    if D is not None:
        y = y + D.to(wide) * u
    if z is not None:
        y = y * torch.nn.functional.silu(z.to(wide))
    return y.to(dtype), h[:, -1].reshape(b, d, n)
