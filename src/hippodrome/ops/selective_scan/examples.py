"""Inputs of the selective scan shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    b: int = 2,
    t: int = 37,
    d: int = 6,
    n: int = 4,
    g: int = 0,
    *,
    constant: str = "",
    complex_: bool = False,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    softplus: bool = True,
    with_skip: bool = True,
    with_gate: bool = True,
    with_bias: bool = True,
    with_state: bool = True,
    with_resets: bool = True,
) -> tuple[Tensor | None, ...]:
    """Arguments of the door in order: A = -(1..n) times noise, step sizes around 0.1.

    ``g`` groups of B and C; 0 gives them no group axis. With ``softplus`` the step sizes are meant to go
    through softplus; without, they are positive as they stand. ``constant`` names those of "B" and "C" that
    do not vary in time. ``complex_`` gives A imaginary parts of up to 3 and makes B, C and the state complex.
    """
    r = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=r, dtype=dtype)

    u, dt = normal(b, t, d), 0.5 * normal(b, t, d) - 2.0
    dt = dt if softplus else torch.exp(dt)
    A = -torch.arange(1, n + 1, dtype=dtype) * (0.5 + torch.rand(d, n, generator=r, dtype=dtype))
    pair = (2,) if complex_ else ()
    if complex_:
        A = torch.stack([A, 6 * torch.rand(d, n, generator=r, dtype=dtype) - 3], -1)
    shape = (b, t, g, n, *pair) if g else (b, t, n, *pair)
    B, C = (normal(d, n, *pair) if name in constant else normal(*shape) for name in ("B", "C"))
    D = normal(d) if with_skip else None
    z = normal(b, t, d) if with_gate else None
    bias = 0.3 * normal(d)
    dt_bias = (bias if softplus else bias.abs()) if with_bias else None
    state = normal(b, d, n, *pair) if with_state else None
    resets = torch.rand(b, t, generator=r) < 0.1 if with_resets else None
    return u, dt, A, B, C, D, z, dt_bias, state, resets


BENCH_SHAPES = [{"b": 1, "t": 1024, "d": 1536, "n": 16}, {"b": 4, "t": 2048, "d": 1536, "n": 16}]
