"""Definition of the diagonal time-invariant system, one step at a time in float64: the oracle."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def _complex(pairs: Tensor) -> Tensor:
    return torch.view_as_complex(pairs.double().contiguous())


def diagonal_lti(
    u: Tensor,
    log_a: Tensor,
    w: Tensor,
    initial_state: Tensor | None,
    resets: Tensor | None,
    skip: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs and last state; arguments as at the door."""
    b, t = u.shape[:2]
    a, weight = torch.exp(_complex(log_a)), _complex(w)
    h = a.new_zeros(b, *a.shape) if initial_state is None else _complex(initial_state)
    outputs = []
    for i in range(t):
        if resets is not None:
            h = torch.where(resets[:, i, None, None], 0.0, h)
        h = a * h + u[:, i, :, None].double()
        y = (weight * h).sum(-1).real
        outputs.append(y if skip is None else y + skip.double() * u[:, i].double())
    wide = torch.promote_types(u.dtype, torch.float32)
    return torch.stack(outputs, 1).to(u.dtype), torch.view_as_real(h).to(wide)
