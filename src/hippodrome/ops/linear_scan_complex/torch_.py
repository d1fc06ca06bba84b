"""Complex linear scan in plain PyTorch: a log-depth odd-even scan on real pairs, any device."""

import torch
from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def product(a: Tensor, x: Tensor) -> Tensor:
    """a times x, complex, both with a trailing axis of 2."""
    a_re, a_im = a[..., 0], a[..., 1]
    x_re, x_im = x[..., 0], x[..., 1]
    return torch.stack([a_re * x_re - a_im * x_im, a_re * x_im + a_im * x_re], -1)


def scan(a: Tensor, x: Tensor) -> Tensor:
    """h_t = a_t h_{t-1} + x_t from a zero state along axis 1, in log2(t) halvings (odd-even reduction)."""
    t = x.shape[1]
    if t == 1:
        return x
    pairs = t // 2
    a_even, a_odd = a[:, 0 : 2 * pairs : 2], a[:, 1 : 2 * pairs : 2]
    x_even, x_odd = x[:, 0 : 2 * pairs : 2], x[:, 1 : 2 * pairs : 2]
    odd = scan(product(a_odd, a_even), product(a_odd, x_even) + x_odd)
    later = product(a[:, 2::2], odd[:, : (t - 1) // 2]) + x[:, 2::2]
    even = torch.cat([x[:, :1], later], 1)
    joined = torch.stack([even[:, :pairs], odd], 2).flatten(1, 2)
    return joined if t == 2 * pairs else torch.cat([joined, even[:, pairs:]], 1)


def scan_constant(a: Tensor, keep: Tensor | None, x: Tensor) -> Tensor:
    """The same with one decay a (d, 2) for every step; ``keep`` (b, t, 1, 1) is 0 at a reset and 1 elsewhere.

    A pair of steps decays by a squared, whatever its place, so only powers of a are formed, never (b, t, d).
    """
    t = x.shape[1]
    if t == 1:
        return x
    pairs = t // 2
    x_even, x_odd = x[:, 0 : 2 * pairs : 2], x[:, 1 : 2 * pairs : 2]
    carried, joint = product(a, x_even), None
    if keep is not None:
        keep_even, keep_odd = keep[:, 0 : 2 * pairs : 2], keep[:, 1 : 2 * pairs : 2]
        carried, joint = keep_odd * carried, keep_odd * keep_even
    odd = scan_constant(product(a, a), joint, carried + x_odd)
    carried = product(a, odd[:, : (t - 1) // 2])
    if keep is not None:
        carried = keep[:, 2::2] * carried
    even = torch.cat([x[:, :1], carried + x[:, 2::2]], 1)
    joined = torch.stack([even[:, :pairs], odd], 2).flatten(1, 2)
    return joined if t == 2 * pairs else torch.cat([joined, even[:, pairs:]], 1)


def linear_scan_complex(
    a: Tensor, x: Tensor, initial_state: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States and last state; arguments as at the door."""
    dtype = x.dtype
    wide = torch.promote_types(dtype, torch.float32)
    a, x = a.to(wide), x.to(wide)
    if initial_state is not None:
        state = initial_state.to(wide)
        if resets is not None:
            state = torch.where(resets[:, 0, None, None], 0.0, state)
        first = x[:, :1] + product(a if a.dim() == 2 else a[:, :1], state[:, None])
        x = torch.cat([first, x[:, 1:]], 1)
    if a.dim() == 2:
        h = scan_constant(a, None if resets is None else (~resets)[..., None, None].to(wide), x)
    else:
        h = scan(a if resets is None else torch.where(resets[..., None, None], 0.0, a), x)
    return h.to(dtype), h[:, -1].clone()
