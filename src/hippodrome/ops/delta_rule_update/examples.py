"""Inputs of one token of the delta rule shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor

from hippodrome.ops.delta_rule import examples


def inputs(
    b: int = 2,
    h: int = 4,
    k: int = 3,
    v: int = 5,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    with_gate: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Arguments of the door in order; beta, the gate and the state are in float32 at least."""
    wide = torch.promote_types(dtype, torch.float32)
    q, key, value, beta, log_decay, state, _ = examples.inputs(
        b, 1, h, k, v, dtype=wide, seed=seed, with_gate=with_gate
    )
    assert state is not None
    q, key, value = (m[:, 0].to(dtype) for m in (q, key, value))
    return q, key, value, beta[:, 0], None if log_decay is None else log_decay[:, 0], state


BENCH_SHAPES = [{"b": 1, "h": 12, "k": 64, "v": 64}]
