"""Inputs of one token of gated linear attention shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor

from hippodrome.ops.gla import examples


def inputs(
    b: int = 2,
    h: int = 4,
    k: int = 3,
    v: int = 5,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Arguments of the door in order; decays and state are in float32 at least."""
    wide = torch.promote_types(dtype, torch.float32)
    q, key, value, log_decay, state, _ = examples.inputs(b, 1, h, k, v, dtype=wide, seed=seed)
    assert state is not None
    q, key, value = (m[:, 0].to(dtype) for m in (q, key, value))
    return q, key, value, log_decay[:, 0], state


BENCH_SHAPES = [{"b": 1, "h": 4, "k": 96, "v": 192}]
