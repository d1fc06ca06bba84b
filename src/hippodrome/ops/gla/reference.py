"""Definition of gated linear attention, one step at a time in float64: the oracle of every other backend."""

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    initial_state: Tensor | None,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs and last state; arguments as at the door."""
    dtype, wide = v.dtype, torch.promote_types(v.dtype, torch.float32)
    q, k, v, log_decay = q.double(), k.double(), v.double(), log_decay.double()
    b, t, heads, size = k.shape
    state = v.new_zeros(b, heads, size, v.shape[-1]) if initial_state is None else initial_state.double()
    outputs = []
    for i in range(t):
        if resets is not None:
            state = torch.where(resets[:, i, None, None, None], 0.0, state)
        state = log_decay[:, i].exp()[..., None] * state + k[:, i, :, :, None] * v[:, i, :, None]
        outputs.append((state * q[:, i, :, :, None]).sum(-2))
    return torch.stack(outputs, 1).to(dtype), state.to(wide)
