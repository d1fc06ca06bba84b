"""SSD in plain PyTorch: matrix products over chunks of time, any device, differentiable any number of times."""

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def decays(log_decay: Tensor, segments: Tensor | None) -> Tensor:
    """exp of the sums of ``log_decay`` over (j, i], as (..., i, j), from (..., q); zero where j > i.

    Each sum is formed by adding its own terms (never as the difference of two running sums, which cancels), and
    what is masked is masked before exp, so that gradients stay finite. ``segments`` (..., q) numbers the stretches
    between resets; pairs of different stretches get zero.
    """
    q = log_decay.shape[-1]
    later = torch.ones(q, q, dtype=torch.bool, device=log_decay.device).tril(-1)
    terms = log_decay[..., :, None].expand(*log_decay.shape, q).masked_fill(~later, 0.0)
    sums = terms.cumsum(-2)
    allowed = torch.ones(q, q, dtype=torch.bool, device=log_decay.device).tril()
    if segments is not None:
        allowed = allowed & (segments[..., :, None] == segments[..., None, :])
    return sums.masked_fill(~allowed, -torch.inf).exp()


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
    """Outputs and last state; arguments as at the door."""
    with torch.autocast(x.device.type, enabled=False):
        return _ssd(x, dt, A, B, C, D, initial_state, resets, chunk)


def _ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    resets: Tensor | None,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    dtype = x.dtype
    wide = torch.promote_types(dtype, torch.float32)
    x, dt, A, B, C = x.to(wide), dt.to(wide), A.to(wide), B.to(wide), C.to(wide)
    b, t, heads, p = x.shape
    groups, n = B.shape[2:]
    per = heads // groups
    # A padded step has dt = 0: its decay is one and its input nothing, so the state walks through it unchanged.
    pad = -t % chunk
    dt_padded = F.pad(dt, (0, 0, 0, pad))
    u = F.pad(x * dt[..., None], (0, 0, 0, 0, 0, pad)).view(b, -1, chunk, groups, per, p)
    B = F.pad(B, (0, 0, 0, 0, 0, pad)).view(b, -1, chunk, groups, n)
    C = F.pad(C, (0, 0, 0, 0, 0, pad)).view(b, -1, chunk, groups, n)
    log_decay = (dt_padded * A).view(b, -1, chunk, groups, per).movedim(2, -1)  # b m g r q

    cut = None
    if resets is not None:
        cut = F.pad(resets, (0, pad)).view(b, -1, chunk)
    segments = None if cut is None else cut.cumsum(-1)
    within = decays(log_decay, None if segments is None else segments[:, :, None, None])
    scores = torch.einsum("bmign,bmjgn->bmgij", C, B)
    y = torch.einsum("bmgrij,bmjgrp->bmigrp", within * scores[:, :, :, None], u)

    # The state each chunk would end with alone, and what is left at its end of the state it began with.
    from_start = log_decay.cumsum(-1)
    to_end = F.pad(log_decay[..., 1:], (0, 1)).flip(-1).cumsum(-1).flip(-1).exp()
    from_start = from_start.exp()
    if segments is not None:
        to_end = to_end.masked_fill((segments != segments[..., -1:])[:, :, None, None], 0.0)
        from_start = from_start.masked_fill((segments > 0)[:, :, None, None], 0.0)
    alone = torch.einsum("bmjgrp,bmjgn->bmgrpn", u * to_end.movedim(-1, 2)[..., None], B)

    # Pass states from chunk to chunk in parallel: chunk z begins with the sum of what earlier ones left.
    first = x.new_zeros(b, heads, p, n) if initial_state is None else initial_state.to(wide)
    left = torch.cat([first.view(b, 1, groups, per, p, n), alone], 1)
    total = F.pad(log_decay.sum(-1), (0, 0, 0, 0, 1, 0)).movedim(1, -1)  # b g r m+1
    chunk_segments = None
    if segments is not None:
        chunk_segments = F.pad(segments[..., -1].cumsum(-1), (1, 0))[:, None, None]
    states = torch.einsum("bgrzc,bcgrpn->bzgrpn", decays(total, chunk_segments), left)
    begin, last = states[:, :-1], states[:, -1]
    off = torch.einsum("bmign,bmgrpn->bmigrp", C, begin)
    y = (y + off * from_start.movedim(-1, 2)[..., None]).reshape(b, -1, heads, p)[:, :t]
    if D is not None:
        y = y + D.to(wide)[:, None] * x
    return y.to(dtype), last.reshape(b, heads, p, n)
