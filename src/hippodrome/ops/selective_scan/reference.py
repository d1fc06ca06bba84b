"""Definition of the selective scan, one step at a time in float64: the oracle of every other backend."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def _of_channels(x: Tensor, b: int, t: int, d: int) -> Tensor:
    """B or C as (b, t, d, n), or (b, t, 1, n) where all channels share it."""
    if x.dim() == 2:
        return x.expand(b, t, *x.shape)
    return x[:, :, None] if x.dim() == 3 else x.repeat_interleave(d // x.shape[2], 2)


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
    u, dt = u.double(), dt.double()
    complex_ = A.dim() == 3
    A, B, C = (torch.view_as_complex(x.double().contiguous()) if complex_ else x.double() for x in (A, B, C))
    b, t, d = u.shape
    B, C = (_of_channels(x, b, t, d) for x in (B, C))
    if dt_bias is not None:
        dt = dt + dt_bias.double()
    if softplus:
        dt = torch.logaddexp(dt, torch.zeros_like(dt))
    h = A.new_zeros(b, d, A.shape[1])
    if initial_state is not None:
        h = initial_state.double()
        h = torch.view_as_complex(h.contiguous()) if complex_ else h
    outputs = []
    for i in range(t):
        if resets is not None:
            h = torch.where(resets[:, i, None, None], 0.0, h)
        h = torch.exp(dt[:, i, :, None] * A) * h + dt[:, i, :, None] * B[:, i] * u[:, i, :, None]
        y = (C[:, i] * h).sum(-1)
        if complex_:
            y = 2 * y.real
        if D is not None:
            y = y + D.double() * u[:, i]
        if z is not None:
            y = y * torch.nn.functional.silu(z[:, i].double())
        outputs.append(y)
    last = torch.view_as_real(h) if complex_ else h
    return torch.stack(outputs, 1).to(dtype), last.to(torch.promote_types(dtype, torch.float32))
