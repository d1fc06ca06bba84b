"""Inputs of one token of the selective scan shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor

from hippodrome.ops.selective_scan import examples


def inputs(
    b: int = 2,
    d: int = 6,
    n: int = 4,
    g: int = 0,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    softplus: bool = True,
    rest: bool = True,
) -> tuple[Tensor | None, ...]:
    """Arguments of the door in order; what is not an activation is in float32 at least.

    ``rest`` says whether skip, gate and bias of the step sizes are there.
    """
    wide = torch.promote_types(dtype, torch.float32)
    u, dt, A, B, C, D, z, bias, state, _ = examples.inputs(
        b,
        1,
        d,
        n,
        g,
        dtype=wide,
        seed=seed,
        softplus=softplus,
        with_skip=rest,
        with_gate=rest,
        with_bias=rest,
    )
    u, dt, B, C, z = (None if x is None else x[:, 0].to(dtype) for x in (u, dt, B, C, z))
    return u, dt, A, B, C, D, z, bias, state


BENCH_SHAPES = [{"b": 1, "d": 1536, "n": 16}]
