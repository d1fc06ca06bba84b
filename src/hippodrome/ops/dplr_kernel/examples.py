"""Inputs of the kernel of S4 shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    d: int = 3,
    n: int = 4,
    r: int = 1,
    *,
    length: int = 41,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int]:
    """Arguments of the door in order: poles left of the axis, normal columns and weights, Q near P."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=dtype)

    real = -0.5 - torch.rand(d, n, generator=g, dtype=dtype)
    poles = torch.stack([real, 3.0 * torch.arange(n, dtype=dtype) + normal(d, n)], -1)
    P = 0.7 * normal(d, r, n, 2)
    Q = P + 0.02 * normal(d, r, n, 2)
    step = 0.02 + 0.1 * torch.rand(d, generator=g, dtype=dtype)
    return poles, P, Q, normal(d, n, 2), normal(d, n, 2), step, length


BENCH_SHAPES = [{"d": 256, "n": 32, "length": length} for length in (1024, 4096, 16384)]
