"""Routing tokens to memories: who goes where, packing by memory, and the loss that balances the load."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SLACK = 0.8
"""Pieces run together where the shortest has at least this part of the longest's tokens."""


class Route(NamedTuple):
    """Where tokens go."""

    weights: Float[Tensor, "*tokens m"]
    """Weight of each memory's reading: zero where it is not chosen, one in sum over those that are."""
    chosen: Bool[Tensor, "*tokens m"]
    """Which memories take a token in and are read by it."""


def route(logits: Float[Tensor, "*tokens m"], active: int) -> Route:
    """The ``active`` most probable memories, their softmax (in float32 at least) renormalized over them.

    Ties go to the memory of the lower number, so that one token is routed as many are.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    p = logits.to(wide).softmax(-1)
    kept = p.sort(dim=-1, descending=True, stable=True).indices[..., :active]
    chosen = torch.zeros_like(p, dtype=torch.bool).scatter(-1, kept, True)
    p = p.masked_fill(~chosen, 0.0)
    return Route(p / p.sum(-1, keepdim=True), chosen)


class Balance(NamedTuple):
    """How evenly tokens are spread."""

    load: Float[Tensor, "m"]
    """Part of the tokens that choose each memory; k / M each where balance is perfect."""
    share: Float[Tensor, "m"]
    """Mean weight of each memory, zero counted where it is not chosen."""
    loss: Float[Tensor, ""]
    """M sum_m load_m share_m: k where balance is perfect."""


def balance(routed: Route) -> Balance:
    """Load, share and loss of routed tokens."""
    load = routed.chosen.flatten(0, -2).to(routed.weights.dtype).mean(0)
    share = routed.weights.flatten(0, -2).mean(0)
    return Balance(load, share, len(load) * (load * share).sum())


class Balanced(torch.autograd.Function):
    """The weights as they are; backwards, also the gradient of ``factor`` times the balance loss."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, chosen: Tensor, factor: float) -> Tensor:
        """The weights."""
        load = chosen.flatten(0, -2).to(weights.dtype).mean(0)
        ctx.save_for_backward(load * (factor * len(load) * len(load) / weights.numel()))
        return weights.view_as(weights)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """What comes, and the loss's own."""
        (own,) = ctx.saved_tensors
        return grad + own, None, None


class Pieces(NamedTuple):
    """Tokens of some rows, each for one memory, in the order of time: p pieces filled up to l tokens."""

    rows: Int[Tensor, "p"]
    memories: Int[Tensor, "p"]
    """Not falling."""
    counts: list[int]
    """How many pieces each memory has."""
    tokens: Int[Tensor, "p l"]
    """Which token of its row each is; beyond the piece's own, any."""
    length: Int[Tensor, "p"]
    """Tokens of each piece."""

    def valid(self) -> Bool[Tensor, "p l"]:
        """Which are tokens of the piece."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device) < self.length[:, None]


def pack(chosen: Bool[Tensor, "b t m"]) -> list[Pieces]:
    """Tokens by memory and row: ``pack_alike``, or ``pack_all`` where there are no values to read."""
    if torch.compiler.is_compiling() or chosen.device.type == "meta":
        return pack_all(chosen)
    return pack_alike(chosen)


def pack_alike(chosen: Bool[Tensor, "b t m"]) -> list[Pieces]:
    """Groups of pieces nearly alike in length, which waste at most a fifth of their places.

    Their sizes are values of ``chosen``. A memory that no token of a row chose has no piece there.
    """
    order, counts = _sorted(chosen)
    lengths = counts.tolist()
    left = [(n, m, b) for b, row in enumerate(lengths) for m, n in enumerate(row) if n]
    left.sort(reverse=True)
    groups = []
    while left:
        longest = left[0][0]
        together = sorted(piece[1:] for piece in left if piece[0] >= SLACK * longest)
        left = left[len(together) :]
        which, rows = torch.tensor(together, device=chosen.device).unbind(1)
        sizes = [sum(m == i for m, _ in together) for i in range(counts.shape[1])]
        groups.append(Pieces(rows, which, sizes, order[rows, which, :longest], counts[rows, which]))
    return groups


def pack_all(chosen: Bool[Tensor, "b t m"]) -> list[Pieces]:
    """One group, with a piece of t places for every row and memory: all sizes are known without values."""
    order, counts = _sorted(chosen)
    b, memories = counts.shape
    rows = torch.arange(b, device=chosen.device).repeat(memories)
    which = torch.arange(memories, device=chosen.device).repeat_interleave(b)
    return [Pieces(rows, which, [b] * memories, order.transpose(0, 1).flatten(0, 1), counts.T.flatten())]


def _sorted(chosen: Tensor) -> tuple[Int[Tensor, "b m t"], Int[Tensor, "b m"]]:
    """For each row and memory: the numbers of its tokens, before those of all others; how many they are."""
    marks = chosen.transpose(1, 2).to(torch.uint8)
    return marks.sort(dim=-1, descending=True, stable=True).indices, chosen.sum(1)
