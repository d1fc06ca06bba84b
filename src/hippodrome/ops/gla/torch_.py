"""Gated linear attention in plain PyTorch: short chunks, any device, differentiable any number of times."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.ops.linear_scan.torch_ import scan

NAME = "torch"
CHUNK = 16


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
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
    with torch.autocast(q.device.type, enabled=False):
        return _gla(q, k, v, log_decay, initial_state, resets)


def _gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    initial_state: Tensor | None,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    dtype = v.dtype
    wide = torch.promote_types(dtype, torch.float32)
    b, t, heads, size = k.shape
    pad = -t % CHUNK

    def chunks(z: Tensor) -> Tensor:
        """(b, t, h, .) to (b, m, h, chunk, .), padded with steps that neither decay nor add anything."""
        padded = F.pad(z.to(wide), (0, 0, 0, 0, 0, pad))
        return padded.view(b, -1, CHUNK, heads, z.shape[-1]).transpose(2, 3)

    q, k, v, log_decay = chunks(q), chunks(k), chunks(v), chunks(log_decay)
    allowed = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=q.device).tril()
    later = allowed.tril(-1)
    segments = None
    if resets is not None:
        segments = F.pad(resets, (0, pad)).view(b, -1, 1, CHUNK).cumsum(-1)
        allowed = allowed & (segments[..., :, None] == segments[..., None, :])

    # Decay of each pair (i, j) and key channel: the sum over (j, i] of its own terms, masked before exp.
    sums = log_decay[..., :, None, :].expand(*log_decay.shape[:-1], CHUNK, size)
    sums = sums.masked_fill(~later[..., None], 0.0).cumsum(-3)
    pairs = sums.masked_fill(~allowed[..., None], -torch.inf).exp()
    scores = torch.einsum("bmhik,bmhijk,bmhjk->bmhij", q, pairs, k)
    y = scores @ v

    from_start = log_decay.cumsum(-2).exp()
    to_end = F.pad(log_decay[..., 1:, :], (0, 0, 0, 1)).flip(-2).cumsum(-2).flip(-2).exp()
    total = from_start[..., -1, :]
    if segments is not None:
        from_start = from_start.masked_fill((segments > 0)[..., None], 0.0)
        to_end = to_end.masked_fill((segments != segments[..., -1:])[..., None], 0.0)
        total = total.masked_fill(segments[..., -1:] > 0, 0.0)
    alone = (k * to_end).transpose(-1, -2) @ v
    first = v.new_zeros(b, heads, size, v.shape[-1]) if initial_state is None else initial_state.to(wide)
    # states[m] is the state before chunk m; the first entry of the scan is the initial state itself.
    states = scan(F.pad(total, (0, 0, 0, 0, 1, 0))[..., None], torch.cat([first[:, None], alone], 1))
    y = y + (q * from_start) @ states[:, :-1]
    return y.transpose(2, 3).reshape(b, -1, heads, v.shape[-1])[:, :t].to(dtype), states[:, -1].clone()
