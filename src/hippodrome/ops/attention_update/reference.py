"""Definition of one token of attention, one row and one head at a time in float64."""

import math

import torch
from torch import Tensor

NAME = "reference"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the definition runs anywhere."""
    return None


def _turned(x: Tensor, position: int, frequencies: Tensor | None) -> Tensor:
    y = x.double().clone()
    for i, frequency in enumerate([] if frequencies is None else frequencies.tolist()):
        j, angle = i + len(frequencies), position * frequency  # type: ignore[arg-type]
        y[i] = x[i].double() * math.cos(angle) - x[j].double() * math.sin(angle)
        y[j] = x[j].double() * math.cos(angle) + x[i].double() * math.sin(angle)
    return y


def attention_update(
    qkv: Tensor,
    frequencies: Tensor | None,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    heads: int,
    scale: float,
    ring: bool,
) -> Tensor:
    """The output; arguments as at the door."""
    b, s, kv, e = k.shape
    y = torch.zeros(b, heads, e, dtype=torch.float64, device=qkv.device)
    for row in range(b):
        position = int(seen[row])
        if position >= s and not ring:
            raise ValueError(f"attention_update: {position} of {s} slots are filled; one token more comes.")
        parts = qkv[row].view(-1, e)
        for g in range(kv):
            k[row, position % s, g] = _turned(parts[heads + g], position, frequencies).to(k.dtype)
            v[row, position % s, g] = parts[heads + kv + g].to(v.dtype)
        filled = min(position + 1, s)
        for h in range(heads):
            g = h // (heads // kv)
            query = _turned(parts[h], position, frequencies)
            scores = (k[row, :filled, g].double() * query).sum(-1) * scale
            y[row, h] = (scores.softmax(0)[:, None] * v[row, :filled, g].double()).sum(0)
    seen += 1
    return y.flatten(1).to(qkv.dtype)
