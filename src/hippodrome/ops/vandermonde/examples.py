"""Inputs of the Vandermonde product shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    d: int = 3, n: int = 4, *, length: int = 41, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, int]:
    """Arguments of the door in order: decaying modes at all angles, normal weights, a length."""
    g = torch.Generator().manual_seed(seed)
    decay = -0.3 * torch.rand(d, n, generator=g, dtype=dtype)
    angle = 3.0 * torch.rand(d, n, generator=g, dtype=dtype)
    return torch.stack([decay, angle], -1), torch.randn(d, n, 2, generator=g, dtype=dtype), length


BENCH_SHAPES = [{"d": 256, "n": 32, "length": length} for length in (1024, 4096, 16384)]
