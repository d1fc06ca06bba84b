"""Inputs of the dense time-invariant systems shared by their tests, their benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    t: int = 37,
    d: int = 3,
    n: int = 4,
    m: int = 2,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    with_state: bool = True,
    with_resets: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor]:
    """Arguments of the door in order: stable matrices with no symmetry, normal weights, few resets."""
    g = torch.Generator().manual_seed(seed)
    u = torch.randn(b, t, d, generator=g, dtype=dtype)
    A = torch.randn(d, n, n, generator=g, dtype=dtype)
    A = 0.95 * A / A.square().sum((1, 2), keepdim=True).sqrt()
    # A part that turns without decay beside what fades, so that the past counts.
    A = 0.5 * A + 0.45 * torch.eye(n, dtype=dtype).roll(1, 0)
    B = torch.randn(d, n, generator=g, dtype=dtype)
    C = torch.randn(d, m, n, generator=g, dtype=dtype) / n**0.5
    state = torch.randn(b, d, n, generator=g, dtype=dtype) if with_state else None
    resets = torch.rand(b, t, generator=g) < 0.1 if with_resets else None
    return u, A, B, C, state, resets, torch.randn(d, m, generator=g, dtype=dtype)


BENCH_SHAPES = [{"b": 4, "t": t, "d": 256, "n": 64, "m": 1} for t in (1024, 4096, 16384)]
"""A layer of S4's usual size."""
