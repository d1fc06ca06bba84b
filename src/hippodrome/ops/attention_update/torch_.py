"""One token of attention in PyTorch: any device."""

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def _turned(x: Tensor, seen: Tensor, frequencies: Tensor) -> Tensor:
    """Heads (b, h, e) with their first pairs turned; angles in the precision of the frequencies."""
    half = frequencies.shape[0]
    angle = seen.to(frequencies.dtype)[:, None, None] * frequencies
    wide = torch.promote_types(x.dtype, torch.float32)
    cos, sin = angle.cos().to(wide), angle.sin().to(wide)
    first, second, rest = x.to(wide).split([half, half, x.shape[-1] - 2 * half], -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], -1).to(x.dtype)


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
    # On an accelerator reading the count would stall the queue, and under compilation it is not a number.
    if not ring and seen.device.type == "cpu" and not torch.compiler.is_compiling() and b:
        most = int(seen.max())
        if most >= s:
            raise ValueError(f"attention_update: {most} of {s} slots are filled; one token more comes.")
    turned, new = qkv.unflatten(-1, (-1, e)).split([heads + kv, kv], 1)
    if frequencies is not None:
        turned = _turned(turned, seen, frequencies)
    q, key = turned.split([heads, kv], 1)
    slot = (seen % s)[:, None, None, None].expand(b, 1, kv, e)
    k.scatter_(1, slot, key[:, None].to(k.dtype))
    v.scatter_(1, slot, new[:, None].to(v.dtype))
    filled = torch.arange(s, device=k.device) <= seen[:, None]
    keys, values = (x.transpose(1, 2).to(q.dtype) for x in (k, v))
    y = F.scaled_dot_product_attention(
        q[:, :, None], keys, values, filled[:, None, None], scale=scale, enable_gqa=heads != kv
    )
    seen.add_(1)
    return y.flatten(1)
