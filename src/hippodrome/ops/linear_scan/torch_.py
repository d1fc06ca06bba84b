"""Linear scan in plain PyTorch: a log-depth odd-even scan, any device, differentiable any number of times."""

import torch
from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def scan(a: Tensor, x: Tensor) -> Tensor:
    """h_t = a_t h_{t-1} + x_t from a zero state along axis 1, in log2(t) halvings (odd-even reduction)."""
    t = x.shape[1]
    if t == 1:
        return x
    pairs = t // 2
    a_even, a_odd = a[:, 0 : 2 * pairs : 2], a[:, 1 : 2 * pairs : 2]
    x_even, x_odd = x[:, 0 : 2 * pairs : 2], x[:, 1 : 2 * pairs : 2]
    odd = scan(a_odd * a_even, a_odd * x_even + x_odd)
    later = a[:, 2::2] * odd[:, : (t - 1) // 2] + x[:, 2::2]
    even = torch.cat([x[:, :1], later], 1)
    joined = torch.stack([even[:, :pairs], odd], 2).flatten(1, 2)
    return joined if t == 2 * pairs else torch.cat([joined, even[:, pairs:]], 1)


def linear_scan(
    a: Tensor, x: Tensor, initial_state: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States and last state; arguments as at the door."""
    dtype = x.dtype
    wide = torch.promote_types(dtype, torch.float32)
    a, x = a.to(wide), x.to(wide)
    if a.dim() == 1:
        a = a.expand(x.shape)
    if resets is not None:
        a = torch.where(resets[..., None], 0.0, a)
    if initial_state is not None:
        x = torch.cat([x[:, :1] + a[:, :1] * initial_state.to(wide)[:, None], x[:, 1:]], 1)
    h = scan(a, x)
    return h.to(dtype), h[:, -1].clone()
