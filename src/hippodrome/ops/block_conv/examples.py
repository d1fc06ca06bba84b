"""Inputs of the convolution with a state, shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    t: int = 37,
    d: int = 3,
    *,
    length: int = 11,
    later: int = 0,
    with_state: bool = True,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor | None, ...]:
    """Arguments of the door in order: x normal, kernels that decay; ``later`` taps on later tokens."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=dtype)

    def taps(count: int) -> Tensor:
        return normal(d, count) * torch.exp(-3 * torch.arange(count, dtype=dtype) / max(count, 1))

    x, kernel = normal(b, t, d), taps(length)
    state = normal(b, length - 1, d) if with_state else None
    return x, kernel, state, taps(later) if later else None, normal(b, later, d) if later else None


BENCH_SHAPES = [{"b": 8, "t": t, "d": 256, "length": t, "with_state": False} for t in (1024, 4096, 16384)]
