"""Definition of SSD, one step at a time in float64: the oracle every other backend is held to."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    resets: Tensor | None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """Outputs and last state; arguments as at the door. ``chunk`` does not matter here."""
    dtype, wide = x.dtype, torch.promote_types(x.dtype, torch.float32)
    x, dt, A, B, C = x.double(), dt.double(), A.double(), B.double(), C.double()
    b, t, heads, p = x.shape
    groups, n = B.shape[2:]
    B = B.repeat_interleave(heads // groups, 2)
    C = C.repeat_interleave(heads // groups, 2)
    h = x.new_zeros(b, heads, p, n) if initial_state is None else initial_state.double()
    outputs = []
    for i in range(t):
        if resets is not None:
            h = torch.where(resets[:, i, None, None, None], 0.0, h)
        update = (dt[:, i, :, None] * x[:, i])[..., None] * B[:, i, :, None]
        h = torch.exp(dt[:, i] * A)[..., None, None] * h + update
        y = (h * C[:, i, :, None]).sum(-1)
        outputs.append(y if D is None else y + D.double()[:, None] * x[:, i])
    return torch.stack(outputs, 1).to(dtype), h.to(wide)
