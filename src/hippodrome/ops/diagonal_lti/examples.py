"""Inputs of the diagonal time-invariant system shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    t: int = 37,
    d: int = 3,
    n: int = 4,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    with_state: bool = True,
    with_resets: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor]:
    """Arguments of the door in order: decaying modes at all angles, normal weights and input, few resets."""
    g = torch.Generator().manual_seed(seed)
    u = torch.randn(b, t, d, generator=g, dtype=dtype)
    decay = -0.3 * torch.rand(d, n, generator=g, dtype=dtype)
    angle = 3.0 * torch.rand(d, n, generator=g, dtype=dtype)
    w = torch.randn(d, n, 2, generator=g, dtype=dtype)
    state = torch.randn(b, d, n, 2, generator=g, dtype=dtype) if with_state else None
    resets = torch.rand(b, t, generator=g) < 0.1 if with_resets else None
    skip = torch.randn(d, generator=g, dtype=dtype)
    return u, torch.stack([decay, angle], -1), w, state, resets, skip


BENCH_SHAPES = [{"b": 8, "t": t, "d": 256, "n": 32} for t in (1024, 4096, 16384)]
