"""Inputs of the scan over a grid shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    t: int = 37,
    v: int = 3,
    d: int = 5,
    *,
    constant: bool = False,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    with_state: bool = True,
    with_edge: bool = True,
    with_resets: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Arguments of the door in order: a1, a4 in (0.5, 0.9), a2, a3 up to 0.1 of either sign, all else normal.

    ``constant`` gives a the shape (4, d): all cells alike.
    """
    g = torch.Generator().manual_seed(seed)
    straight = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=dtype)[:, None]
    spread = torch.rand(*((4, d) if constant else (b, t, v, 4, d)), generator=g, dtype=dtype)
    a = straight * (0.5 + 0.4 * spread) + (1 - straight) * 0.2 * (spread - 0.5)
    u = torch.randn(b, t, v, 2, d, generator=g, dtype=dtype)
    state = torch.randn(b, v, 2, d, generator=g, dtype=dtype) if with_state else None
    edge = torch.randn(b, t, 2, d, generator=g, dtype=dtype) if with_edge else None
    resets = torch.rand(b, t, generator=g) < 0.1 if with_resets else None
    return a, u, state, edge, resets


BENCH_SHAPES = [
    {"b": 4, "t": 512, "v": 7, "d": 64},
    {"b": 1, "t": 256, "v": 64, "d": 64},
]
