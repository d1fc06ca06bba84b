"""Inputs of the cross-entropy shared by its tests, its benchmarks and the docs."""

import torch
from torch import Tensor


def inputs(
    rows: int = 37, vocab: int = 50, *, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments of the door in order: logits, targets of which some are -100, and a rate."""
    r = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, vocab, generator=r, dtype=torch.float64)
    targets = torch.randint(vocab, (rows,), generator=r)
    targets[1::5] = -100
    rate = torch.tensor(1 / rows, dtype=torch.promote_types(dtype, torch.float32))
    return logits.to(dtype), targets, rate


BENCH_SHAPES = [{"rows": 512, "vocab": 50280}]
