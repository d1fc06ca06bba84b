"""Inputs of the dense linear scan shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    t: int = 37,
    n: int = 4,
    r: int | None = None,
    *,
    form: str = "own",
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    with_state: bool = True,
    with_resets: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Arguments of the door in order: A a contraction, v normal, an initial state, and a few resets.

    ``form`` is that of A: "constant" (n, n), "shared" (t, n, n) or "own" (b, t, n, n). Its matrices are 0.95
    times a product of a skew part's exponential, so that they turn the state and shrink it by that. With
    ``r`` a row has r states.
    """
    g = torch.Generator().manual_seed(seed)
    shape = {"constant": (), "shared": (t,), "own": (b, t)}[form]
    G = torch.randn(*shape, n, n, generator=g, dtype=dtype)
    A = 0.95 * torch.matrix_exp((G - G.mT) / max(n, 1) ** 0.5)
    width = (n,) if r is None else (r, n)
    v = torch.randn(b, t, *width, generator=g, dtype=dtype)
    state = torch.randn(b, *width, generator=g, dtype=dtype) if with_state else None
    resets = torch.rand(b, t, generator=g) < 0.1 if with_resets else None
    return A, v, state, resets


BENCH_SHAPES = [
    {"b": 8, "t": 1024, "n": 64, "form": "constant"},
    {"b": 8, "t": 1024, "n": 64, "form": "shared"},
    {"b": 8, "t": 1024, "n": 16, "form": "own"},
]
