"""Inputs of the linear map shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    r: int = 2,
    i: int = 37,
    o: int = 21,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    bias: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Arguments of the door in order: r rows, a matrix of about unit gain, a bias."""
    numbers = torch.Generator().manual_seed(seed)
    x = torch.randn(r, i, generator=numbers, dtype=dtype)
    weight = torch.randn(o, i, generator=numbers, dtype=dtype) / i**0.5
    return x, weight, torch.randn(o, generator=numbers, dtype=dtype) if bias else None


BENCH_SHAPES = [{"r": 1, "i": 768, "o": 50280}, {"r": 1, "i": 768, "o": 3072}, {"r": 1, "i": 1536, "o": 768}]
