"""Definition of the delta rule, one step at a time in float64: the oracle of every other backend."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    initial_state: Tensor | None,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs and last state; arguments as at the door."""
    dtype, wide = v.dtype, torch.promote_types(v.dtype, torch.float32)
    q, k, v, beta = q.double(), k.double(), v.double(), beta.double()
    b, t, heads, size = k.shape
    state = v.new_zeros(b, heads, size, v.shape[-1]) if initial_state is None else initial_state.double()
    outputs = []
    for i in range(t):
        if resets is not None:
            state = torch.where(resets[:, i, None, None, None], 0.0, state)
        if log_decay is not None:
            state = log_decay[:, i].double().exp()[..., None, None] * state
        stored = (state * k[:, i, :, :, None]).sum(-2)
        write = beta[:, i, :, None] * (v[:, i] - stored)
        state = state + k[:, i, :, :, None] * write[:, :, None]
        outputs.append((state * q[:, i, :, :, None]).sum(-2))
    return torch.stack(outputs, 1).to(dtype), state.to(wide)
