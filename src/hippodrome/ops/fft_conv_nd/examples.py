"""Inputs of the global convolution over a grid shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    t: int = 9,
    d: int = 3,
    *,
    columns: int = 4,
    lags: tuple[int, int] = (5, 7),
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Arguments of the door in order: a grid of t rows, a kernel that is two-sided along the columns."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(b, t, columns, d, generator=g, dtype=dtype)
    kernel = torch.randn(d, *lags, generator=g, dtype=dtype)
    return x, kernel, (0, lags[1] // 2)


BENCH_SHAPES = [{"b": 8, "t": 32, "d": 128, "columns": 32, "lags": (63, 63)}]
