"""The attention engine: rotary positions, masks from positions and stretches, and caches of keys and values.

A cache has slots (b, s, kv, e), and each row counts its tokens since its last reset. Token number p of a row
lies in slot p mod s. So one formula serves a cache that holds everything (s never runs out) and a ring that
holds the last s tokens (new ones overwrite old ones), and a reset only sets the count to zero.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def rotate(
    x: Float[Tensor, "b t h e"], positions: Int[Tensor, "#b t"], base: float = 10000.0
) -> Float[Tensor, "b t h e"]:
    """Rotary positions: the pairs (x_i, x_{i+e/2}) turned by the angle position * base^(-2i/e).

    Su et al. 2021, "RoFormer", arXiv 2104.09864, equation 34, on halves instead of neighbours, which permutes
    channels. Angles are formed in float64 where the device has it: in float32 they are off by a hundredth of
    a turn after a hundred thousand tokens.
    """
    turns = frequencies(x.shape[-1] // 2, base, x.device)
    angle = positions.to(turns.dtype)[..., None, None] * turns
    wide = torch.promote_types(x.dtype, torch.float32)
    cos, sin = angle.cos().to(wide), angle.sin().to(wide)
    first, second = x.to(wide).chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


def frequencies(half: int, base: float, device: torch.device) -> Float[Tensor, "half"]:
    """Angles per position, base^(-i/half) of pair i, in float64 where the device has it."""
    exact = torch.float32 if device.type == "mps" else torch.float64
    exponent: Tensor = torch.arange(half, device=device, dtype=exact) / half
    return base**-exponent


def slot_positions(count: Int[Tensor, "b"], slots: int) -> Int[Tensor, "b s"]:
    """The number of the token that lies in each slot; negative where a slot is empty."""
    newest = count[:, None] - 1
    slot = torch.arange(slots, device=count.device)
    return newest - (newest - slot) % slots if slots else count.new_zeros(len(count), 0)


def stretches(resets: Bool[Tensor, "b t"], count: Int[Tensor, "b"]) -> tuple[Tensor, Tensor]:
    """For each new token: its number in its stretch, and the stretch, where 0 continues the cache."""
    index = torch.arange(resets.shape[1], device=resets.device)
    start = torch.where(resets, index, -1).cummax(1).values
    positions = torch.where(start < 0, count[:, None] + index, index - start)
    return positions, resets.cumsum(1)


def attend(
    q: Float[Tensor, "b t h e"],
    k: Float[Tensor, "b s kv e"],
    v: Float[Tensor, "b s kv e"],
    mask: Bool[Tensor, "#b t s"] | None,
    scale: float | None = None,
) -> Float[Tensor, "b t h e"]:
    """softmax(scale q k^T) v where ``mask`` is True; without a mask, causally over the same tokens.

    A ``scale`` of None is 1 / sqrt(e).
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    allowed = None if mask is None else mask[:, None]
    y = F.scaled_dot_product_attention(
        q, k, v, allowed, is_causal=mask is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    return y.transpose(1, 2)


def attend_all(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    number: Tensor,
    stretch: Tensor,
    key_number: Tensor,
    key_stretch: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Each query over every earlier key of its own stretch; keys with a negative number are empty."""
    mask = key_number[:, None] <= number[:, :, None]
    mask &= (key_number >= 0)[:, None] & (key_stretch[:, None] == stretch[:, :, None])
    return attend(q, k, v, mask, scale)


def attend_window(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    number: Tensor,
    stretch: Tensor,
    key_number: Tensor,
    key_stretch: Tensor,
    window: int,
    *,
    scale: float | None = None,
) -> Tensor:
    """Each query over the last ``window`` keys of its own stretch, itself among them, in time linear in t.

    Keys hold ``window`` tokens from before the first query in the order of time, then the queries' own
    tokens. Queries go in blocks; a block of size m sees ``window`` + m keys.
    """
    b, t, heads, e = q.shape
    m = min(window, t)
    pad = -t % m

    def block(x: Tensor, value: int = 0) -> Tensor:
        """Queries (b, t, ...) to (b * blocks, m, ...)."""
        return F.pad(x, [0, 0] * (x.dim() - 2) + [0, pad], value=value).reshape(-1, m, *x.shape[2:])

    def band(x: Tensor, value: int = 0) -> Tensor:
        """Keys (b, window + t, ...) to (b * blocks, window + m, ...), overlapping."""
        x = F.pad(x, [0, 0] * (x.dim() - 2) + [0, pad], value=value).unfold(1, window + m, m)
        return x.movedim(-1, 2).flatten(0, 1)

    number, key_number = block(number, -1), band(key_number, -1)
    stretch, key_stretch = block(stretch, -1), band(key_stretch, -1)
    # A padded query and its own padded key share number and stretch -1, so that no row of the mask is empty.
    age = number[:, :, None] - key_number[:, None]
    mask = (age >= 0) & (age < window) & (stretch[:, :, None] == key_stretch[:, None])
    y = attend(block(q), band(k), band(v), mask, scale)
    return y.reshape(b, -1, heads, e)[:, :t]


def write(
    cache: Float[Tensor, "b s kv e"],
    new: Float[Tensor, "b t kv e"],
    slots: int,
    first: Int[Tensor, "b"],
    count: Int[Tensor, "b"],
) -> Float[Tensor, "b slots kv e"]:
    """The cache after the new tokens, with ``slots`` slots, empty ones zero.

    Args:
        cache: slots before.
        new: keys or values of the new tokens.
        slots: how many there shall be; as many as before, or more where nothing has been overwritten yet.
        first: the number that the first new token has in the stretch that ends the row; negative where that
            stretch begins later among the new tokens.
        count: how many tokens that stretch has in all.
    """
    skip = max(0, new.shape[1] - slots)
    new, first = new[:, skip:], first + skip
    number = slot_positions(count, slots)
    at = number - first[:, None]
    # A token that is not among the new ones lies where it lay: in the slot of its number.
    source = torch.where(at >= 0, cache.shape[1] + at, torch.arange(slots, device=at.device))
    source = torch.where(number >= 0, source, 0)
    joined = torch.cat([cache.to(new.dtype), new], 1)
    index = source[..., None, None].expand(-1, -1, *new.shape[2:])
    return torch.where((number >= 0)[..., None, None], joined.gather(1, index), 0.0)
