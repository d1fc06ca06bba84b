"""One token of the delta rule in PyTorch: any device."""

from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def delta_rule_update(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, state: Tensor
) -> Tensor:
    """The output; arguments as at the door."""
    kind, wide = v.dtype, state.dtype
    q, k, v, beta = (m.to(wide) for m in (q, k, v, beta))
    if log_decay is not None:
        state.mul_(log_decay.to(wide).exp()[..., None, None])
    stored = (state * k[..., None]).sum(-2)
    state.addcmul_(k[..., None], (beta[..., None] * (v - stored))[..., None, :])
    return (state * q[..., None]).sum(-2).to(kind)
