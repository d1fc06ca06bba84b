"""Inputs of the selective scan over a grid shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    t: int = 37,
    v: int = 3,
    d: int = 5,
    n: int = 3,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    with_state: bool = True,
    with_resets: bool = True,
) -> tuple[Tensor | None, ...]:
    """Arguments of the door in order: step sizes in (0.01, 0.5), rates -1, .. -n, K in (-0.5, 0.5)."""
    g = torch.Generator().manual_seed(seed)
    normal = [torch.randn(*size, generator=g, dtype=dtype) for size in ((b, t, v, d), *[(b, t, v, 2, n)] * 2)]
    dt = 0.01 + 0.49 * torch.rand(b, t, v, 2, d, generator=g, dtype=dtype)
    A = -torch.arange(1.0, n + 1, dtype=dtype).expand(2, d, n).clone()
    K = torch.rand(2, d, n, generator=g, dtype=dtype) - 0.5
    state = torch.randn(b, v, 2, d, n, generator=g, dtype=dtype) if with_state else None
    resets = torch.rand(b, t, generator=g) < 0.1 if with_resets else None
    x, B, C = normal
    return x, dt, A, K, B, C, state, resets


BENCH_SHAPES = [
    {"b": 32, "t": 11, "v": 7, "d": 64, "n": 8},
    {"b": 4, "t": 512, "v": 7, "d": 64, "n": 8},
]
