"""Dense linear scan in plain PyTorch: a log-depth odd-even scan of matrix products, any device."""

import torch
from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def scan(A: Tensor, keep: Tensor | None, v: Tensor) -> Tensor:
    """h_t = A_t h_{t-1} + v_t from a zero state along axis 1 of v (g, t, m, n), in log2(t) halvings.

    A is (n, n), constant: a pair of steps multiplies by A squared, whatever its place. Or it is (g, t, n, n).
    ``keep`` (g, t, m, 1) is False where the state before a step is dropped. It stands beside A and not inside
    it, so that states which share A need not be dropped together.
    """
    t = v.shape[1]
    if t == 1:
        return v
    pairs = t // 2
    if A.dim() == 2:
        A_odd, A_late, A_pair = A, A, A @ A
    else:
        A_odd, A_late = A[:, 1 : 2 * pairs : 2], A[:, 2::2]
        A_pair = A_odd @ A[:, 0 : 2 * pairs : 2]
    v_even, v_odd = v[:, 0 : 2 * pairs : 2], v[:, 1 : 2 * pairs : 2]
    carried, joint = v_even @ A_odd.mT, None
    if keep is not None:
        keep_odd = keep[:, 1 : 2 * pairs : 2]
        carried, joint = torch.where(keep_odd, carried, 0.0), keep_odd & keep[:, 0 : 2 * pairs : 2]
    odd = scan(A_pair, joint, carried + v_odd)
    carried = odd[:, : (t - 1) // 2] @ A_late.mT
    if keep is not None:
        carried = torch.where(keep[:, 2::2], carried, 0.0)
    even = torch.cat([v[:, :1], carried + v[:, 2::2]], 1)
    joined = torch.stack([even[:, :pairs], odd], 2).flatten(1, 2)
    return joined if t == 2 * pairs else torch.cat([joined, even[:, pairs:]], 1)


def dense_scan(
    A: Tensor, v: Tensor, initial_state: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States and last state; arguments as at the door."""
    dtype, single = v.dtype, v.dim() == 3
    wide = torch.promote_types(dtype, torch.float32)
    with torch.autocast(v.device.type, enabled=False):
        A, v = A.to(wide), v.to(wide)
        v = v[:, :, None] if single else v
        keep = None if resets is None else ~resets[..., None, None]
        if initial_state is not None:
            state = initial_state.to(wide).view(v[:, 0].shape)
            state = state if keep is None else torch.where(keep[:, 0], state, 0.0)
            first = A if A.dim() == 2 else A[..., 0, :, :]
            v = torch.cat([v[:, :1] + (state @ first.mT)[:, None], v[:, 1:]], 1)
        if A.dim() == 3:
            # Every row shares A, so the rows stand side by side under each of its matrices.
            b, t, r, n = v.shape
            rows = v.transpose(0, 1).reshape(1, t, b * r, n)
            marks = None if keep is None else keep.expand(b, t, r, 1).transpose(0, 1).reshape(1, t, b * r, 1)
            h = scan(A[None], marks, rows).view(t, b, r, n).transpose(0, 1)
        else:
            h = scan(A, keep, v)
        h = h[:, :, 0] if single else h
        return h.to(dtype), h[:, -1].clone()
