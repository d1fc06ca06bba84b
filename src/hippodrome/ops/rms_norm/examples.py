"""Inputs of the root-mean-square norm shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    t: int = 37,
    d: int = 6,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    gated: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Arguments of the door in order: x, the weights, and a gate."""
    r = torch.Generator().manual_seed(seed)
    x = torch.randn(b, t, d, generator=r, dtype=dtype)
    weight = 1 + 0.5 * torch.randn(d, generator=r, dtype=dtype)
    z = torch.randn(b, t, d, generator=r, dtype=dtype) if gated else None
    return x, weight, z


BENCH_SHAPES = [{"b": 1, "t": 1024, "d": 768, "gated": False}, {"b": 1, "t": 1024, "d": 1536}]
