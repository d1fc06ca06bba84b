"""Inputs of the causal long convolution shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    t: int = 37,
    d: int = 3,
    *,
    length: int = 37,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Arguments of the door in order: x normal, a kernel that decays over its length."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(b, t, d, generator=g, dtype=dtype)
    decay = torch.exp(-3 * torch.arange(length, dtype=dtype) / max(length, 1))
    return x, torch.randn(d, length, generator=g, dtype=dtype) * decay


BENCH_SHAPES = [{"b": 8, "t": t, "d": 256, "length": t} for t in (1024, 4096, 16384)]
