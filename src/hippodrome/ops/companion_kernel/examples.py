"""Inputs of the companion kernel shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    d: int = 3, n: int = 5, m: int = 2, *, length: int = 41, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Arguments of the door in order: last columns of sum one, so that powers do not grow; normal weights."""
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, d, n, generator=g, dtype=dtype)
    c = torch.randn(d, m, n, generator=g, dtype=dtype)
    return a / a.abs().sum(-1, keepdim=True), b, c, length


BENCH_SHAPES = [{"d": 128, "n": 64, "m": 1, "length": length} for length in (336, 1024, 4096, 16384)]
"""SpaceTime's decoder: 128 kernels of 64 states; a look-back of 336, and longer ones."""
