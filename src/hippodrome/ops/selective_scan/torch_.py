"""Selective scan in plain PyTorch: all exponentials at once, then a log-depth scan; any device."""

import torch
from torch import Tensor

from hippodrome.ops import _pairs
from hippodrome.ops.linear_scan.torch_ import scan
from hippodrome.ops.linear_scan_complex.torch_ import scan as scan_pairs

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
    pair = A.shape[2:]  # (2,) where A is complex: real and imaginary part side by side.
    if B.dim() - len(pair) == 3:
        B, C = B[:, :, None], C[:, :, None]
    g, n = B.shape[2:4]
    if dt_bias is not None:
        dt = dt + dt_bias.to(wide)
    if softplus:
        dt = torch.logaddexp(dt, torch.zeros_like(dt))
    # Channels as (g, d/g), so that the groups of B and C meet theirs by broadcasting.
    full = (g, d // g, n, *pair)
    rate = dt.view(b, t, d, *[1] * (A.dim() - 1)) * A
    decay = (_pairs.exp(rate) if pair else torch.exp(rate)).view(b, t, *full)
    x = (dt * u).view(b, t, g, d // g, *[1] * (A.dim() - 1)) * B[:, :, :, None]
    if initial_state is not None:
        state = initial_state.to(wide).view(b, 1, *full)
        if resets is not None:
            state = torch.where(resets[:, 0].view(b, *[1] * (state.dim() - 1)), 0.0, state)
        first = _pairs.times(decay[:, :1], state) if pair else decay[:, :1] * state
        x = torch.cat([x[:, :1] + first, x[:, 1:]], 1)
    if resets is not None:
        decay = torch.where(resets.view(b, t, *[1] * len(full)), 0.0, decay)
    h = scan_pairs(decay, x) if pair else scan(decay, x)
    products = h * C[:, :, :, None]
    y = 2 * (products[..., 0] - products[..., 1]).sum(-1) if pair else products.sum(-1)
    y = y.reshape(b, t, d)
    if D is not None:
        y = y + D.to(wide) * u
    if z is not None:
        y = y * torch.nn.functional.silu(z.to(wide))
    return y.to(dtype), h[:, -1].reshape(b, d, n, *pair)
