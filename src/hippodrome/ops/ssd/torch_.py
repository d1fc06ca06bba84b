"""SSD in plain PyTorch: matrix products over chunks of time, any device, differentiable at will."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.ops.linear_scan.torch_ import scan

NAME = "torch"
CHUNK = 64
FEW_CHUNKS = 64
"""Up to here states pass between chunks in one product, quadratic in their number; beyond by a scan."""


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def decays(log_decay: Tensor, segments: Tensor | None) -> Tensor:
    """exp of the sums of ``log_decay`` over (j, i], as (..., i, j), from (..., q); zero where j > i.

    Each sum is formed by adding its own terms (never as the difference of two running sums, which cancels),
    and what is masked is masked before exp, so that gradients stay finite. ``segments`` (..., q) numbers the
    stretches between resets; pairs of different stretches get zero.
    """
    q = log_decay.shape[-1]
    allowed = torch.ones(q, q, dtype=torch.bool, device=log_decay.device).tril()
    terms = log_decay[..., :, None].expand(*log_decay.shape, q).masked_fill(~allowed.tril(-1), 0.0)
    if segments is not None:
        allowed = allowed & (segments[..., :, None] == segments[..., None, :])
    return terms.cumsum(-2).masked_fill(~allowed, -torch.inf).exp()


def pass_states(log_total: Tensor, segments: Tensor | None, left: Tensor) -> Tensor:
    """States before each chunk and after the last, (b, m+1, h, s).

    ``left`` (b, m+1, h, s) holds the first state, then what each chunk leaves at its end; ``log_total``
    (b, h, m+1) what each lets through of the state before it (the first entry counts for nothing).
    """
    if torch.compiler.is_compiling() or left.shape[1] <= FEW_CHUNKS:
        weights = decays(log_total, None if segments is None else segments[:, None])
        return (weights @ left.transpose(1, 2)).transpose(1, 2)
    through = log_total.exp()
    if segments is not None:
        through = through * F.pad(segments[:, 1:] == segments[:, :-1], (1, 0))[:, None]
    return scan(through.transpose(1, 2)[..., None], left)


def _first(y: Tensor, t: int) -> Tensor:
    """The first t steps. An export cannot prove that a slice of a padded length fits; an index it checks."""
    if torch.compiler.is_exporting():
        return y.index_select(1, torch.arange(t, device=y.device))
    return y[:, :t]


def ssd(
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
    q: int,
) -> tuple[Tensor, Tensor]:
    dtype = x.dtype
    wide = torch.promote_types(dtype, torch.float32)
    x, dt, A, B, C = x.to(wide), dt.to(wide), A.to(wide), B.to(wide), C.to(wide)
    b, t, h, p = x.shape
    g, n = B.shape[2:]
    r = h // g
    # An export with a length left open must not tell one chunk from several, so there it has always two.
    m = (t + (2 * q if torch.compiler.is_exporting() else q) - 1) // q
    # A padded step has dt = 0: its decay is one and its input nothing, and the state passes unchanged.
    pad = m * q - t
    log_decay = F.pad(dt * A, (0, 0, 0, pad)).view(b, m, q, h).transpose(2, 3)
    u = F.pad(x * dt[..., None], (0, 0, 0, 0, 0, pad)).view(b, m, q, h, p)
    B = F.pad(B, (0, 0, 0, 0, 0, pad)).view(b, m, q, g, n).transpose(2, 3)
    C = F.pad(C, (0, 0, 0, 0, 0, pad)).view(b, m, q, g, n).transpose(2, 3)
    segments = None if resets is None else F.pad(resets, (0, pad)).view(b, m, q).cumsum(-1)

    # Within chunks: (L * C B^T) u.
    weights = decays(log_decay, None if segments is None else segments[:, :, None])
    scores = C @ B.transpose(-1, -2)
    weights = (weights.view(b, m, g, r, q, q) * scores[:, :, :, None]).view(b, m, h, q, q)
    y = (weights @ u.transpose(2, 3)).transpose(2, 3)

    # What each chunk leaves at its end, and what of the state before it is left at each step.
    to_end = F.pad(log_decay[..., 1:], (0, 1)).flip(-1).cumsum(-1).flip(-1).exp()
    from_start = log_decay.cumsum(-1).exp()
    chunk_segments = None
    if segments is not None:
        to_end = torch.where((segments == segments[..., -1:])[:, :, None], to_end, 0.0)
        from_start = torch.where((segments == 0)[:, :, None], from_start, 0.0)
        chunk_segments = F.pad(segments[..., -1].cumsum(-1), (1, 0))
    kept = (u * to_end.transpose(2, 3)[..., None]).view(b, m, q, g, r * p).permute(0, 1, 3, 4, 2)
    leaves = (kept @ B).view(b, m, h, p * n)
    first = x.new_zeros(b, h, p, n) if initial_state is None else initial_state.to(wide)
    log_total = F.pad(log_decay.sum(-1), (0, 0, 1, 0)).transpose(1, 2)
    states = pass_states(log_total, chunk_segments, torch.cat([first.reshape(b, 1, h, p * n), leaves], 1))

    # Outputs of the state before each chunk.
    before = states[:, :-1].reshape(b, m, g, r * p, n)
    off = (C @ before.transpose(-1, -2)).view(b, m, g, q, r, p).transpose(2, 3).reshape(b, m, q, h, p)
    y = y + off * from_start.transpose(2, 3)[..., None]
    y = _first(y.reshape(b, m * q, h, p), t)
    if D is not None:
        y = y + D.to(wide)[:, None] * x
    return y.to(dtype), states[:, -1].reshape(b, h, p, n)
