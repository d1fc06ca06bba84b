"""Inputs of SSD shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    t: int = 37,
    h: int = 4,
    p: int = 3,
    n: int = 5,
    g: int = 2,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    with_D: bool = True,
    with_state: bool = True,
    with_resets: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Arguments of the door in order; dt log-uniform in (0.001, 0.1), A in (-16, -1), a few resets."""
    r = torch.Generator().manual_seed(seed)
    x = torch.randn(b, t, h, p, generator=r, dtype=dtype)
    dt = 10 ** (-3 + 2 * torch.rand(b, t, h, generator=r, dtype=dtype))
    A = -1 - 15 * torch.rand(h, generator=r, dtype=dtype)
    B = torch.randn(b, t, g, n, generator=r, dtype=dtype)
    C = torch.randn(b, t, g, n, generator=r, dtype=dtype)
    D = torch.randn(h, generator=r, dtype=dtype) if with_D else None
    state = torch.randn(b, h, p, n, generator=r, dtype=dtype) if with_state else None
    resets = torch.rand(b, t, generator=r) < 0.1 if with_resets else None
    return x, dt, A, B, C, D, state, resets


BENCH_SHAPES = [{"b": 1, "t": 2048, "h": 24, "p": 64, "n": 128, "g": 1}]
