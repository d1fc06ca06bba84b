"""Inputs of the grouped linear map shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    n: int = 12,
    g: int = 5,
    i: int = 7,
    o: int = 6,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments of the door in order: n rows, g matrices of about unit gain, counts with a zero."""
    numbers = torch.Generator().manual_seed(seed)
    x = torch.randn(n, i, generator=numbers, dtype=dtype)
    weight = torch.randn(g, o, i, generator=numbers, dtype=dtype) / i**0.5
    owners = torch.randint(g - 1, (n,), generator=numbers) if g > 1 else torch.zeros(n, dtype=torch.long)
    owners = owners + (owners > 0)
    return x, weight, torch.bincount(owners, minlength=g)


BENCH_SHAPES = [{"n": 2, "g": 16, "i": 768, "o": 2048}, {"n": 4096, "g": 8, "i": 256, "o": 512}]
