"""Local attention's bookkeeping: tokens laid out in blocks of their own stretch, and rings of the last keys.

Tokens of a row are numbered from its last reset, or only some of them, those that are kept. A stretch (from
one reset to the next) fills blocks of ``size`` slots from its first token on, so that number p stands in slot
p mod size of its block, whatever the rows do; a reset opens a new block. Distances within neighbouring blocks
are then the same everywhere, and a query sees its own block and a few around it: time linear in t.

What came before is in a ring of slots (b, r, ...): kept token number p lies in slot p mod r.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from hippodrome.mixers._attention import slot_positions


class Numbers(NamedTuple):
    """Where each token of a call stands. ``keep``: None where every token is kept."""

    number: Int[Tensor, "b t"]
    """Its number among the kept tokens of its stretch."""
    stretch: Int[Tensor, "b t"]
    """0 for what continues the ring, then one more at each reset."""
    keep: Bool[Tensor, "b t"] | None
    last: Int[Tensor, "b"]
    """The stretch that ends the row."""
    total: Int[Tensor, "b"]
    """Kept tokens of that stretch, those before the call among them."""


def count_off(
    seen: Int[Tensor, "b"], length: int, resets: Tensor | None = None, keep: Tensor | None = None
) -> Numbers:
    """Number the kept tokens; ``seen`` of the stretch that continues came before this call."""
    if resets is None:
        resets = torch.zeros(len(seen), length, dtype=torch.bool, device=seen.device)
    kept = torch.ones_like(resets) if keep is None else keep
    so_far = kept.cumsum(1)
    stretch = resets.cumsum(1)
    before = torch.where(resets, so_far - kept.long(), 0).cummax(1).values
    inside = torch.where(stretch == 0, seen[:, None], 0) + so_far - before
    return Numbers(inside - 1, stretch, keep, stretch[:, -1], inside[:, -1])


def pack(numbers: Numbers) -> tuple[Numbers, Int[Tensor, "b m"], Int[Tensor, "b t"]]:
    """The kept tokens alone, to the left, as many as the row with most has (one at least).

    Returns their numbers, which token of the call each one is, and where each token of the call went.
    """
    number, stretch, keep, last, total = numbers
    assert keep is not None
    b, t = keep.shape
    rank = keep.cumsum(1) - 1
    # Under compilation a shape does not follow from values: there nothing is left out.
    most = t if torch.compiler.is_compiling() else max(1, int(rank[:, -1].max()) + 1)
    index = torch.where(keep, rank, most)
    time = torch.arange(t, device=keep.device).expand(b, t)
    source = time.new_zeros(b, most + 1).scatter(1, index, time)[:, :most]
    kept = torch.arange(most, device=keep.device) <= rank[:, -1:]
    packed = Numbers(number.gather(1, source), stretch.gather(1, source), kept, last, total)
    return packed, source, rank.clamp(min=0)


class Layout(NamedTuple):
    """Blocks (b, back + blocks + ahead, size) of slots for the keys, the middle ones for queries too."""

    place: Int[Tensor, "b n"] | None
    """The slot of each held and new token, one behind the last for those that have none. None: in order."""
    stretch: Int[Tensor, "b m w"]
    """The stretch of each slot; -1 where it is empty."""
    rank: Int[Tensor, "b t"] | None
    """The block of each new token among the queries' blocks; None where tokens lie in order."""
    size: int
    back: int
    blocks: int
    ahead: int


def lay(numbers: Numbers, size: int, back: int, ahead: int, held: int, seen: Tensor, packed: bool) -> Layout:
    """Where tokens go: ``held`` slots of a ring and the new ones; ``packed`` where there are resets."""
    number, stretch, keep, _, _ = numbers
    b, t = number.shape
    kept = torch.ones_like(number, dtype=torch.bool) if keep is None else keep
    opens = kept & ((number % size == 0) | (kept.cumsum(1) == 1))
    rank = opens.cumsum(1) - 1
    if torch.compiler.is_compiling() or (keep is None and not packed):
        # Without resets tokens run through; with them each may open a block.
        blocks = t if packed else (t + 2 * size - 2) // size
    else:
        blocks = int(rank[:, -1].max()) + 1
    slots = (back + blocks + ahead) * size
    new = torch.where(kept, (rank + back) * size + number % size, slots)
    # What is held matters only where the first kept token continues it.
    ring = slot_positions(seen, held)
    base = (seen // size - back)[:, None] * size
    goes_on = (kept & (stretch == 0)).any(1, keepdim=True)
    old = torch.where((ring >= 0) & (ring >= base) & goes_on, ring - base, slots)
    place = torch.cat([old, new], 1)
    marks = torch.cat([torch.zeros_like(old), stretch], 1)
    empty = stretch.new_full((b, slots + 1), -1)
    filled = empty.scatter(1, place, marks)[:, :-1].unflatten(1, (-1, size))
    return Layout(place, filled, rank, size, back, blocks, ahead)


def lay_in_order(length: int, size: int, back: int, ahead: int, device: torch.device) -> Layout:
    """The layout of a call without a state or resets whose tokens are all kept: alike in every row."""
    blocks = -(-length // size)
    index = torch.arange((back + blocks + ahead) * size, device=device) - back * size
    filled = torch.where((index >= 0) & (index < length), 0, -1).view(1, -1, size)
    return Layout(None, filled, None, size, back, blocks, ahead)


def put(layout: Layout, held: Tensor | None, new: Tensor) -> Tensor:
    """Tokens (b, t, e) and those of a ring (b, r, e) in the blocks: (b, back + blocks + ahead, size, e)."""
    size = layout.size
    if layout.place is None:
        behind = (layout.blocks + layout.ahead) * size - new.shape[1]
        return F.pad(new, (0, 0, layout.back * size, behind)).unflatten(1, (-1, size))
    source = new if held is None else torch.cat([held.to(new.dtype), new], 1)
    slots = layout.stretch.shape[1] * size
    space = source.new_zeros(len(source), slots + 1, source.shape[-1])
    index = layout.place[..., None].expand_as(source)
    return space.scatter(1, index, source)[:, :-1].unflatten(1, (-1, size))


def take(layout: Layout, y: Tensor, length: int) -> Tensor:
    """The queries' blocks (b, blocks, size, e) back to tokens (b, t, e); zeros for those not kept."""
    y = y.flatten(1, 2)
    if layout.place is None:
        return y[:, :length]
    place = layout.place[:, -length:] - layout.back * layout.size
    index = place.clamp(max=y.shape[1])[..., None].expand(-1, -1, y.shape[-1])
    return F.pad(y, (0, 0, 0, 1)).gather(1, index)


def around(layout: Layout, x: Tensor) -> Tensor:
    """What each block of queries sees: (b, back + blocks + ahead, w, ...) to (b, blocks, several w, ...)."""
    whole = layout.back + layout.ahead
    return torch.cat([x[:, i : i + layout.blocks] for i in range(whole + 1)], 2)


def queries(layout: Layout, x: Tensor) -> Tensor:
    """The blocks of the queries alone."""
    return x[:, layout.back : layout.back + layout.blocks]


def ages(layout: Layout) -> Int[Tensor, "w s"]:
    """How far back each key that a block sees lies from each of its queries, the same for all blocks."""
    here = torch.arange(layout.size, device=layout.stretch.device)
    seen = torch.arange((layout.back + 1 + layout.ahead) * layout.size, device=here.device)
    return here[:, None] + layout.back * layout.size - seen


def same_stretch(layout: Layout) -> Bool[Tensor, "b m w s"]:
    """Whether a query and a key that its block sees are of one stretch; padding sees padding."""
    return queries(layout, layout.stretch)[..., None] == around(layout, layout.stretch)[:, :, None]


def store(ring: Tensor, new: Tensor, numbers: Numbers) -> Tensor:
    """The ring (b, r, e) after the kept tokens of ``new`` (b, t, e), in its dtype; empty slots are zero."""
    slots, new = ring.shape[1], new.to(ring.dtype)
    number, stretch, keep, last, total = numbers
    goes = (stretch == last[:, None]) & (number >= total[:, None] - slots)
    if keep is not None:
        goes = goes & keep
    held = torch.where((last == 0)[:, None, None], ring, 0.0 if new.is_floating_point() else 0)
    index = torch.where(goes, number % slots, slots)[..., None].expand_as(new)
    return F.pad(held, (0, 0, 0, 1)).scatter(1, index, new)[:, :-1]
