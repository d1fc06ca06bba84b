"""Inputs of one token of the causal convolution shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    d: int = 21,
    w: int = 4,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    bias: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Arguments of the door in order; the state is in float32 at least."""
    r = torch.Generator().manual_seed(seed)
    x = torch.randn(b, d, generator=r, dtype=dtype)
    weight = torch.randn(d, w, generator=r, dtype=dtype) / w**0.5
    shift = torch.randn(d, generator=r, dtype=dtype) if bias else None
    state = torch.randn(b, w - 1, d, generator=r, dtype=torch.promote_types(dtype, torch.float32))
    return x, weight, shift, state


BENCH_SHAPES = [{"b": 1, "d": 1536, "w": 4}]
