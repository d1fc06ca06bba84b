"""Inputs of one token of SSD shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor

from hippodrome.ops.ssd import examples


def inputs(
    b: int = 2,
    h: int = 4,
    p: int = 3,
    n: int = 5,
    g: int = 2,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    rest: bool = True,
) -> tuple[Tensor | None, ...]:
    """Arguments of the door in order; what is not an activation is in float32 at least.

    ``rest`` says whether the skip and the bias of the step sizes are there.
    """
    wide = torch.promote_types(dtype, torch.float32)
    x, dt, A, B, C, D, state, _ = examples.inputs(b, 1, h, p, n, g, dtype=wide, seed=seed, with_D=rest)
    x, dt, B, C = (m[:, 0].to(dtype) for m in (x, dt, B, C))
    bias = torch.linspace(-0.01, 0.02, h, dtype=wide) if rest else None
    return x, dt, A, B, C, D, bias, state


BENCH_SHAPES = [{"b": 1, "h": 24, "p": 64, "n": 128, "g": 1}]
