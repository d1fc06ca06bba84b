"""Inputs of the Cauchy product shared by its tests, its benchmarks and the docs."""

import math

import torch
from torch import Tensor


def inputs(
    d: int = 3,
    q: int = 4,
    n: int = 5,
    l: int = 41,  # noqa: E741
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments of the door in order: normal numerators, nodes of roots of unity, poles left of the axis."""
    g = torch.Generator().manual_seed(seed)
    v = torch.randn(d, q, n, 2, generator=g, dtype=dtype)
    w = 2 * torch.tan(0.5 * math.pi * torch.arange(l, dtype=dtype) / l)
    real = -0.02 - torch.rand(d, n, generator=g, dtype=dtype)
    imag = 4 * torch.rand(d, n, generator=g, dtype=dtype)
    return v, w, torch.stack([real, imag], -1)


BENCH_SHAPES = [{"d": 256, "q": 4, "n": 32, "l": length // 2} for length in (1024, 4096, 16384)]
"""What the kernel of S4 asks for at rank 1: half of the nodes of its length."""
