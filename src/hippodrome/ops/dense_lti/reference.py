"""Definition of the dense time-invariant systems, one step at a time in float64: the oracle."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def dense_lti(
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    initial_state: Tensor | None,
    resets: Tensor | None,
    skip: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs and last state; arguments as at the door."""
    b, t = u.shape[:2]
    a, into, out = A.double(), B.double(), C.double()
    x = into.new_zeros(b, *into.shape) if initial_state is None else initial_state.double()
    outputs = []
    for i in range(t):
        now = u[:, i, :, None].double()
        if resets is not None:
            x = torch.where(resets[:, i, None, None], 0.0, x)
        x = (a @ x[..., None])[..., 0] + into * now
        y = (out @ x[..., None])[..., 0]
        outputs.append(y if skip is None else y + skip.double() * now)
    return torch.stack(outputs, 1).to(u.dtype), x.to(torch.promote_types(u.dtype, torch.float32))
