"""Selective scan in plain PyTorch: all exponentials at once, then a log-depth scan; any device."""

from collections.abc import Callable

import torch
from torch import Tensor

from hippodrome.ops import _pairs
from hippodrome.ops.linear_scan.torch_ import linear_scan
from hippodrome.ops.linear_scan_complex.torch_ import linear_scan_complex

NAME = "torch"
Scan = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], tuple[Tensor, Tensor]]


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def constant(A: Tensor, B: Tensor, C: Tensor) -> bool:
    """Whether B or C is constant in time: of A's shape."""
    return B.dim() == A.dim() or C.dim() == A.dim()


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
    scan = linear_scan_complex if A.dim() == 3 else linear_scan
    return around(scan, u, dt, A, B, C, D, z, dt_bias, initial_state, resets, softplus)


def around(
    scan: Scan,
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
    """The same around any linear scan, complex where A is: decays, inputs and states lie in memory whole."""
    dtype = u.dtype
    wide = torch.promote_types(dtype, torch.float32)
    u, dt, A, B, C = u.to(wide), dt.to(wide), A.to(wide), B.to(wide), C.to(wide)
    b, t, d = u.shape
    n, pair = A.shape[1], A.shape[2:]  # (2,) where A is complex: real and imaginary part side by side.
    g = next((x.shape[2] for x in (B, C) if x.dim() == A.dim() + 2), 1)
    if dt_bias is not None:
        dt = dt + dt_bias.to(wide)
    if softplus:
        dt = torch.logaddexp(dt, torch.zeros_like(dt))
    # Channels as (g, d/g), so that the groups of B and C meet theirs by broadcasting.
    full = (g, d // g, n, *pair)
    B, C = (_of_groups(x, A, g) for x in (B, C))
    rate = dt.view(b, t, d, *[1] * (A.dim() - 1)) * A
    decay = (_pairs.exp(rate) if pair else torch.exp(rate)).reshape(b, t, d * n, *pair)
    x = ((dt * u).view(b, t, g, d // g, *[1] * (A.dim() - 1)) * B).reshape(b, t, d * n, *pair)
    state = None if initial_state is None else initial_state.to(wide).reshape(b, d * n, *pair)
    if state is not None and resets is not None:
        # Zero times a state that is not finite would stay so.
        state = torch.where(resets[:, 0].view(b, *[1] * (A.dim() - 1)), 0.0, state)
    h, last = scan(decay, x, state, resets)
    products = h.view(b, t, *full) * C
    y = 2 * (products[..., 0] - products[..., 1]).sum(-1) if pair else products.sum(-1)
    y = y.reshape(b, t, d)
    if D is not None:
        y = y + D.to(wide) * u
    if z is not None:
        y = y * torch.nn.functional.silu(z.to(wide))
    return y.to(dtype), last.reshape(b, d, n, *pair)


def _of_groups(x: Tensor, A: Tensor, g: int | torch.SymInt) -> Tensor:
    """B or C with axes that meet those of (b, t, g, d/g, n), and of 2 beside a complex A."""
    if x.dim() == A.dim():
        return x.unflatten(0, (g, -1))
    return (x if x.dim() == A.dim() + 2 else x[:, :, None])[:, :, :, None]
