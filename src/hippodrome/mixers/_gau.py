"""The gated attention unit: one small head, its attention functions and its bias of distances."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hippodrome.mixers import _attention as engine
from hippodrome.mixers.base import check_word

ATTENTIONS = ("softmax", "laplace", "relu2")
POSITIONS = ("simple", "rotary")
MEAN, SPREAD = math.sqrt(0.5), math.sqrt(0.25 / math.pi)
"""The Laplace function's mean and spread: there it has the value and the slope of relu^2 at sqrt(2)."""


def attend(
    q: Float[Tensor, "*rows m z"],
    k: Float[Tensor, "*rows s z"],
    v: Float[Tensor, "*rows s h"],
    bias: Float[Tensor, "... m s"],
    mask: Bool[Tensor, "... m s"],
    attention: str = "softmax",
    length: float | Tensor | None = None,
) -> Float[Tensor, "*rows m h"]:
    """sum_s w(q . k_s / scale + bias_s) v_s over the keys where ``mask``.

    For "softmax" the scale is sqrt(z) and the weights sum to one. For "laplace" and "relu2" each weight
    stands alone and the scale is ``length``, the number of keys that a query sees where None. Scores and
    weights are float32 at least. Ma et al. 2022, arXiv 2209.10655, equations of the attention functions.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (q @ k.mT).to(wide)
    if attention == "softmax":
        scale: float | Tensor = q.shape[-1] ** 0.5
    else:
        scale = mask.sum(-1, keepdim=True).clamp(min=1) if length is None else length
    return weigh(scores / scale + bias, mask, attention).to(v.dtype) @ v


def weigh(
    scores: Float[Tensor, "*rows m s"], mask: Bool[Tensor, "... m s"], attention: str = "softmax"
) -> Float[Tensor, "*rows m s"]:
    """The attention function of the scores, 0 where not ``mask``."""
    if attention == "softmax":
        # The least number, not -inf: a row of padding that sees nothing stays finite.
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    if attention == "laplace":
        weights = 0.5 * (1 + torch.erf((scores - MEAN) / (SPREAD * 2**0.5)))
    else:
        weights = scores.relu().square()
    return weights.masked_fill(~mask, 0.0)


def leave(
    x: Float[Tensor, "*tokens d"],
    o: Float[Tensor, "*tokens h"],
    gates: tuple[Tensor, Tensor, Tensor],
    out: nn.Module,
) -> Float[Tensor, "*tokens d"]:
    """x + u (silu(c + out(o r)) - x): what was attended to, behind a reset gate r and an update gate u.

    ``gates``: r of the size of o, u and c of that of x. Ma et al. 2022, arXiv 2209.10655, section 3.
    """
    r, u, c = gates
    c = F.silu(c + out(o * r))
    return (x + u * (c - x)).to(x.dtype)


def refuse_both_ways(name: str) -> None:
    """Raise for a mixer that reads later tokens where it is asked for a state or a step."""
    raise ValueError(
        f"{name} with bidirectional=True reads tokens that come later, so it has neither a state nor a step. "
        "Hand the whole sequence to forward, or take bidirectional=False."
    )


class QueryKey(nn.Module):
    """q = gamma_1 z + beta_1, k = gamma_2 z + beta_2 (Hua et al. 2022, arXiv 2202.10447)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(0.02 * torch.randn(2, size))
        self.beta = nn.Parameter(torch.zeros(2, size))

    def forward(self, z: Float[Tensor, "*tokens z"]) -> tuple[Tensor, Tensor]:
        """Queries and keys of the shape of z."""
        return z * self.gamma[0] + self.beta[0], z * self.gamma[1] + self.beta[1]


class DistanceBias(nn.Module):
    """A number for each distance between a query and a key, added to their score.

    "simple": a table; distances from ``reach`` on share its last number. "rotary": R(distance) a . b with R
    the rotary turn of Su et al. 2021 (arXiv 2104.09864) and a, b learned, which has no end.

    Args:
        positions: "simple" or "rotary".
        reach: how many distances of one sign the table holds.
        size: numbers in a and b, even.
        two_sided: whether keys may lie ahead of a query (negative distances).

    Raises:
        ValueError: an unknown word, an empty table or an odd size.
    """

    def __init__(self, positions: str, reach: int, size: int, two_sided: bool = False) -> None:
        super().__init__()
        check_word("The bias of distances", "kind of positions", positions, POSITIONS)
        if reach < 1:
            raise ValueError(f"A table of distances holds one at least; got max_positions={reach}.")
        self.reach = reach
        self.two_sided = two_sided
        if positions == "simple":
            self.table = nn.Parameter(0.02 * torch.randn(2 * reach - 1 if two_sided else reach))
        else:
            if size % 2:
                raise ValueError(f"Rotary positions turn pairs, so d_query must be even; got {size}.")
            self.a = nn.Parameter(0.02 * torch.randn(size))
            self.b = nn.Parameter(0.02 * torch.randn(size))
        self.simple = positions == "simple"

    def forward(self, age: Int[Tensor, "*rows m s"], span: int) -> Float[Tensor, "*rows m s"]:
        """The bias of each distance; those of ``span`` and more are not asked for, and get any number."""
        last = self.reach - 1 if self.simple else max(0, span - 1)
        first = -last if self.two_sided else 0
        index = age.clamp(first, last) - first
        values = self.table if self.simple else self._turned(first, last)
        wide = torch.promote_types(values.dtype, torch.float32)
        return values.to(wide).index_select(0, index.flatten()).view(index.shape)

    def _turned(self, first: int, last: int) -> Float[Tensor, "m"]:
        """R(distance) a . b for every distance."""
        distance = torch.arange(first, last + 1, device=self.a.device)[None]
        wide = torch.promote_types(self.a.dtype, torch.float32)
        a = self.a.to(wide).expand(1, distance.shape[1], 1, -1)
        return (engine.rotate(a, distance)[0, :, 0] * self.b.to(wide)).sum(-1)
