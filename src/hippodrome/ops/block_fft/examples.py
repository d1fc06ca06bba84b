"""Inputs of the block transform shared by its tests, its benchmarks and the docs."""

from collections.abc import Sequence

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    d: int = 3,
    *,
    sizes: Sequence[int] = (4, 3, 2),
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor, list[Tensor]]:
    """Arguments of the door in order: normal numbers, and small matrices that are no Fourier transforms."""
    g = torch.Generator().manual_seed(seed)
    n = 1
    for m in sizes:
        n *= m
    x = torch.randn(b, n, d, 2, generator=g, dtype=dtype)
    return x, [torch.randn(m, m, 2, generator=g, dtype=dtype) / m**0.5 for m in sizes]


BENCH_SHAPES = [
    {"b": 8, "d": 64, "sizes": (16, 16, 4)},
    {"b": 8, "d": 64, "sizes": (16, 16, 16)},
]
