"""Effective memory: how far back the last output of a causal backbone still depends on its input."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Memory(NamedTuple):
    """Influence of the past on the last output.

    ``influence[k]``: root mean square derivative of the last output with respect to the input k tokens
    before it.
    ``reach``: the fewest last tokens that hold ``share`` of the total influence.
    """

    influence: tuple[float, ...]
    reach: int
    share: float


def effective_memory(
    backbone: Any, length: int = 256, *, share: float = 0.95, probes: int = 8, seed: int = 0
) -> Memory:
    """Measure how much of the past a backbone (or a mixer) looks at, by derivatives at random inputs.

    The derivative d y_last / d x_k is sketched with random signs v: the mean of (v . dy/dx_k)^2 over v is
    its squared Frobenius norm (Hutchinson 1990), here over ``probes`` independent inputs and signs at once.

    Args:
        backbone: a causal module with ``d_model`` that maps (b, t, d) to (b, t, d) and a state.
        length: tokens of context, at least 2.
        share: the part of the total influence that ``reach`` must hold, between 0 and 1.

    Raises:
        ValueError: the backbone is not causal, or the length is too short.
    """
    if not backbone.causal:
        raise ValueError(
            "Effective memory is defined for what is causal: this backbone's last output sees both sides. "
            "Measure one of its directions."
        )
    if length < 2:
        raise ValueError(f"Effective memory needs at least 2 tokens of context; got length={length}.")
    parameter = next(backbone.parameters())
    g = torch.Generator().manual_seed(seed)
    shape = (probes, length, backbone.d_model)
    x = torch.randn(shape, generator=g).to(parameter).requires_grad_()
    signs = (torch.randint(0, 2, (probes, backbone.d_model), generator=g) * 2 - 1).to(parameter)
    training = backbone.training
    backbone.eval()
    try:
        y, _ = backbone(x)
        (gradient,) = torch.autograd.grad((y[:, -1] * signs).sum(), x)
    finally:
        backbone.train(training)
    influence = gradient.double().square().mean((0, 2)).sqrt().flip(0)
    return Memory(tuple(influence.tolist()), _reach(influence, share), share)


def _reach(influence: Tensor, share: float) -> int:
    total = influence.sum()
    if not bool(total > 0):
        return 0
    held = influence.cumsum(0) / total
    return int((held < share * (1 - 1e-12)).sum()) + 1
