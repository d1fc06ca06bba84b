"""The delta rule in plain PyTorch: chunks as matrix products, any device, differentiable any number of times.

Within a chunk the writes w solve a triangular system, (I + B) w = beta v - beta e K S, where S is the state
before the chunk, e_i the decay from its start to i, L[i, j] that from j to i, and B[i, j] =
beta_i L[i, j] k_i . k_j below the diagonal. Its solution is W_v - W_k S with two right sides that do not know
S, and so a chunk maps the state before it to the one after it as S' = M S + N: states pass between chunks by
a scan over pairs (M, N), which no loop runs through. Yang et al. 2024, arXiv 2406.06484, section 3.2, and
arXiv 2412.06464, section 3.3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.ops.ssd.torch_ import decays

NAME = "torch"
CHUNK = 64


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def pass_states(maps: Tensor, adds: Tensor, first: Tensor) -> Tensor:
    """States (b, m + 1, h, k, v) before each chunk and after the last, S' = M S + N from chunk to chunk.

    Two chunks are one of their own kind: the states between pairs come first, and from them those inside.
    """
    if maps.shape[1] > 1:
        late, early, early_adds = maps[:, 1::2], maps[:, :-1:2], adds[:, :-1:2]
        even = pass_states(late @ early, late @ early_adds + adds[:, 1::2], first)
    else:
        even = first[:, None]
    odd = maps[:, ::2] @ even[:, : (maps.shape[1] + 1) // 2] + adds[:, ::2]
    paired = torch.stack([even[:, : odd.shape[1]], odd], 2).flatten(1, 2)
    return torch.cat([paired, even[:, odd.shape[1] :]], 1)


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
    with torch.autocast(q.device.type, enabled=False):
        return _delta_rule(q, k, v, beta, log_decay, initial_state, resets)


def _delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    initial_state: Tensor | None,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    dtype = v.dtype
    wide = torch.promote_types(dtype, torch.float32)
    b, t, heads, size = k.shape
    # A short sequence is one chunk of its own length; padded steps neither decay nor write.
    chunk = min(CHUNK, t)
    pad = -t % chunk
    log_decay = torch.zeros_like(beta) if log_decay is None else log_decay

    def chunks(z: Tensor) -> Tensor:
        """(b, t, h, .) to (b, m, h, chunk, .), padded with zeros."""
        padded = F.pad(z.to(wide), (0, 0, 0, 0, 0, pad))
        return padded.view(b, -1, chunk, heads, z.shape[-1]).transpose(2, 3)

    q, k, v = chunks(q), chunks(k), chunks(v)
    beta, log_decay = chunks(beta[..., None]), chunks(log_decay[..., None])[..., 0]
    segments = None
    if resets is not None:
        segments = F.pad(resets, (0, pad)).view(b, -1, 1, chunk).cumsum(-1)
    L = decays(log_decay, segments)
    from_start = log_decay.cumsum(-1).exp()
    to_end = L[..., -1, :]
    if segments is not None:
        from_start = from_start.masked_fill(segments > 0, 0.0)
    total = from_start[..., -1, None, None]
    from_start, to_end = from_start[..., None], to_end[..., None]

    system = (beta * L * (k @ k.transpose(-1, -2))).tril(-1)
    sides = torch.cat([beta * v, beta * from_start * k], -1)
    # The diagonal counts as ones and is not read.
    solved = torch.linalg.solve_triangular(system, sides, upper=False, unitriangular=True)
    from_values, from_state = solved.split([v.shape[-1], size], -1)
    scores = L * (q @ k.transpose(-1, -2))
    kept = (k * to_end).transpose(-1, -2)
    eye = torch.eye(size, dtype=wide, device=k.device)
    first = v.new_zeros(b, heads, size, v.shape[-1]) if initial_state is None else initial_state.to(wide)
    states = pass_states(total * eye - kept @ from_state, kept @ from_values, first)
    before = states[:, :-1]
    y = scores @ (from_values - from_state @ before) + (q * from_start) @ before
    return y.transpose(2, 3).reshape(b, -1, heads, v.shape[-1])[:, :t].to(dtype), states[:, -1].clone()
