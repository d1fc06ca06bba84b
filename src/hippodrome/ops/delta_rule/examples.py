"""Inputs of the delta rule shared by its tests, its benchmarks and the docs."""

import torch
import torch.nn.functional as F
from torch import Tensor


def inputs(
    b: int = 2,
    t: int = 37,
    h: int = 2,
    k: int = 4,
    v: int = 3,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    with_gate: bool = True,
    with_state: bool = True,
    with_resets: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Arguments of the door in order: keys of length one, beta = sigmoid(normal), gates of
    logsigmoid(normal) / 4, a state, a few resets."""
    r = torch.Generator().manual_seed(seed)
    q = torch.randn(b, t, h, k, generator=r, dtype=dtype) / k**0.5
    key = F.normalize(torch.randn(b, t, h, k, generator=r, dtype=dtype), dim=-1)
    value = torch.randn(b, t, h, v, generator=r, dtype=dtype)
    beta = torch.randn(b, t, h, generator=r, dtype=dtype).sigmoid()
    log_decay = F.logsigmoid(torch.randn(b, t, h, generator=r, dtype=dtype)) / 4 if with_gate else None
    state = torch.randn(b, h, k, v, generator=r, dtype=dtype) if with_state else None
    resets = torch.rand(b, t, generator=r) < 0.1 if with_resets else None
    return q, key, value, beta, log_decay, state, resets


BENCH_SHAPES = [{"b": 1, "t": 2048, "h": 12, "k": 64, "v": 64}]
