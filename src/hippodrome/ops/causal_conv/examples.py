"""Inputs of the causal convolution shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    t: int = 37,
    d: int = 5,
    w: int = 4,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    with_bias: bool = True,
    with_state: bool = True,
    with_resets: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Arguments of the door in order: x, weight, bias, an initial state, and a few resets."""
    r = torch.Generator().manual_seed(seed)
    x = torch.randn(b, t, d, generator=r, dtype=dtype)
    weight = torch.randn(d, w, generator=r, dtype=dtype) / w**0.5
    bias = torch.randn(d, generator=r, dtype=dtype) if with_bias else None
    state = torch.randn(b, w - 1, d, generator=r, dtype=dtype) if with_state else None
    resets = torch.rand(b, t, generator=r) < 0.1 if with_resets else None
    return x, weight, bias, state, resets


BENCH_SHAPES = [{"b": 1, "t": 1024, "d": 1536, "w": 4}]
