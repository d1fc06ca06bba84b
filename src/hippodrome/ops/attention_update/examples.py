"""Inputs of one token of attention shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    s: int = 7,
    kv: int = 2,
    e: int = 6,
    heads: int = 4,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    pairs: int = 2,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:
    """Arguments of the door in order; rows have seen different numbers of tokens."""
    r = torch.Generator().manual_seed(seed)
    qkv = torch.randn(b, (heads + 2 * kv) * e, generator=r, dtype=dtype)
    k, v = (torch.randn(b, s, kv, e, generator=r, dtype=dtype) for _ in range(2))
    frequencies = 100.0 ** -(torch.arange(pairs, dtype=torch.float64) / pairs) if pairs else None
    seen = (torch.arange(b) * 2 + 3).clamp(max=s - 1)
    return qkv, frequencies, k, v, seen


BENCH_SHAPES = [{"b": 1, "s": 2048, "kv": 12, "e": 64, "heads": 12}]
