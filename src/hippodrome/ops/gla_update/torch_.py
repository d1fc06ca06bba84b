"""One token of gated linear attention in PyTorch: any device."""

from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def gla_update(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> Tensor:
    """The output; arguments as at the door."""
    kind, wide = v.dtype, state.dtype
    q, k, v, log_decay = (m.to(wide) for m in (q, k, v, log_decay))
    state.mul_(log_decay.exp()[..., None]).addcmul_(k[..., None], v[..., None, :])
    return (state * q[..., None]).sum(-2).to(kind)
