"""Inputs of the linear map of int8 weights shared by its tests, its benchmarks and the docs."""

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
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Arguments of the door in order: r rows, weights and scales of a matrix of about unit gain, a bias."""
    numbers = torch.Generator().manual_seed(seed)
    x = torch.randn(r, i, generator=numbers, dtype=dtype)
    weight = torch.randint(-127, 128, (o, i), generator=numbers, dtype=torch.int8)
    scale = (torch.rand(o, generator=numbers) + 0.5) / (73 * i**0.5)
    return x, weight, scale, torch.randn(o, generator=numbers, dtype=dtype) if bias else None


BENCH_SHAPES = [{"r": 1, "i": 768, "o": 50280}, {"r": 1, "i": 768, "o": 3072}, {"r": 1, "i": 1536, "o": 768}]
