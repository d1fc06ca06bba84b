"""AdamW over a model's parameter groups: what trains slowly, and what weight decay leaves alone."""

from typing import Any

import torch
from torch import nn

from hippodrome.models.base import Model


def optimizer_groups(model: Model, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for AdamW: the mixers' own, then all other parameters with decay or without.

    Decay (Loshchilov, Hutter 2019, arXiv 1711.05101, algorithm 2) is for the matrices. Biases and norms have
    none: they set offsets and scales, which do not overfit, and pulling a scale to zero shrinks a signal that
    the next layer blows up again. Embeddings have none: the row of a rare token would fade at every step at
    which the token does not occur. ``lr_factor`` and ``max_lr`` stay in the group for the schedule.
    """
    groups: list[dict[str, Any]] = []
    placed: set[int] = set()
    for group in model.parameter_groups():
        parameters = [p for p in group.parameters if p.requires_grad and id(p) not in placed]
        placed |= {id(p) for p in parameters}
        groups.append(
            {
                "params": parameters,
                "weight_decay": weight_decay if group.decay else 0.0,
                "lr_factor": group.lr_factor,
                "max_lr": float("inf") if group.max_lr is None else group.max_lr,
            }
        )
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in placed]
    decays = [p for p in rest if p.dim() >= 2 and id(p) not in tables]
    stays = [p for p in rest if p.dim() < 2 or id(p) in tables]
    for parameters, decay in ((decays, weight_decay), (stays, 0.0)):
        groups.append({"params": parameters, "weight_decay": decay, "lr_factor": 1.0, "max_lr": float("inf")})
    return [group for group in groups if group["params"]]


def adamw(model: Model, lr: float, weight_decay: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW over ``optimizer_groups``, in one fused kernel where the parameters' device has it."""
    groups = optimizer_groups(model, weight_decay)
    devices = {p.device.type for group in groups for p in group["params"]}
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=devices <= {"cpu", "cuda", "mps", "xpu"})


def set_rate(optimizer: torch.optim.Optimizer, lr: float, factor: float) -> None:
    """Sets each group's learning rate: its own peak (``lr`` times its factor, capped), times ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = min(lr * group["lr_factor"], group["max_lr"]) * factor
