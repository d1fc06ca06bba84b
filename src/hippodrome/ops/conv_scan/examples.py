"""Inputs of the convolutional scan shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    t: int = 37,
    i: int = 3,
    j: int = 4,
    d: int = 2,
    n: int = 2,
    o: int = 3,
    k: int = 3,
    w: int = 3,
    *,
    constant: bool = True,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    with_state: bool = True,
    with_resets: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Arguments of the door in order: |a| in (0.5, 1) with any angle, all else normal, and a few resets.

    ``constant`` gives a and gain the shape (n, 2): the same at every step.
    """
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=dtype)

    each = (n,) if constant else (b, t, n)
    radius = 0.5 + 0.5 * torch.rand(*each, generator=g, dtype=dtype)
    angle = 6.283185307179586 * torch.rand(*each, generator=g, dtype=dtype)
    a = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    state = normal(b, i, j, n, 2) if with_state else None
    resets = torch.rand(b, t, generator=g) < 0.1 if with_resets else None
    return (
        normal(b, t, i, j, d),
        a,
        normal(*each, 2),
        normal(n, d, k, k, 2),
        normal(o, n, w, w, 2),
        state,
        resets,
    )


BENCH_SHAPES = [{"b": 4, "t": 32, "i": 16, "j": 16, "d": 64, "n": 32, "o": 64}]
