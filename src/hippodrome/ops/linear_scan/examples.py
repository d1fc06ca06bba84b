"""Inputs of the linear scan shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    t: int = 37,
    d: int = 5,
    *,
    constant: bool = False,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    with_state: bool = True,
    with_resets: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Arguments of the door in order: a in (0.5, 1), x normal, an initial state, and a few resets.

    ``constant`` gives a the shape (d): the same decay at every step.
    """
    g = torch.Generator().manual_seed(seed)
    a = 0.5 + 0.5 * torch.rand(*((d,) if constant else (b, t, d)), generator=g, dtype=dtype)
    x = torch.randn(b, t, d, generator=g, dtype=dtype)
    state = torch.randn(b, d, generator=g, dtype=dtype) if with_state else None
    resets = torch.rand(b, t, generator=g) < 0.1 if with_resets else None
    return a, x, state, resets


BENCH_SHAPES = [
    {"b": 8, "t": 1024, "d": 1536},
    {"b": 8, "t": 4096, "d": 1536},
    {"b": 8, "t": 1024, "d": 1536, "constant": True},
]
