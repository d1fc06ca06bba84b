"""A linear map that is held fast, and a correction of low rank that is learned beside it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.definite_projection import DefiniteProjection
from hippodrome.ops.linear import linear


def refusal(base: nn.Linear, rank: int) -> str | None:
    """Why a map takes no correction of this rank; None where it takes one."""
    most = min(base.in_features, base.out_features)
    if not 1 <= rank <= most:
        return (
            f"a map from {base.in_features} to {base.out_features} channels takes a correction of rank 1 to "
            f"{most}; got {rank}. Take a smaller rank, or leave this map out."
        )
    if isinstance(base, DefiniteProjection):
        return (
            "a map whose rows are tied to keep their signs takes no correction of low rank, which would "
            "break the tie. Leave it out."
        )
    return None


class LowRank(nn.Module):
    """y = base(x) + (alpha / r) B A x, which is the map with W + (alpha / r) B A in the place of W.

    Hu, Shen, Wallis et al. 2021, "LoRA: low-rank adaptation of large language models", arXiv 2106.09685,
    equation 3 and section 4.1. B starts at zero, so that nothing changes at first; A starts uniform within
    1 / sqrt(channels in), as the rows of ``torch.nn.Linear`` do. The base is frozen. A and B are float32 or
    wider whatever the base is.

    ``weight`` is the whole matrix, so a caller that multiplies by it and not by calling the map, as fused
    paths do, has the correction too.

    Args:
        base: the map that is kept, with a weight (o, i).
        rank: r, rows of A and columns of B.
        alpha: the correction is multiplied by alpha / r; None takes r, which leaves it as it is.
        generator: A is drawn from it.

    Raises:
        ValueError: a rank below 1 or above what the map's sizes allow, or a map that does more to its weight
            than multiply by it.
    """

    def __init__(
        self,
        base: nn.Linear,
        rank: int,
        alpha: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        refused = refusal(base, rank)
        if refused is not None:
            raise ValueError(refused)
        self.in_features, self.out_features, self.rank = base.in_features, base.out_features, rank
        self.scale = 1.0 if alpha is None else alpha / rank
        self.base = base.requires_grad_(False)
        place, kind = base.weight.device, torch.promote_types(base.weight.dtype, torch.float32)
        first = torch.empty(rank, base.in_features, dtype=kind)
        first.uniform_(-1 / math.sqrt(base.in_features), 1 / math.sqrt(base.in_features), generator=generator)
        self.down = nn.Parameter(first.to(place))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, dtype=kind, device=place))

    @property
    def correction(self) -> Float[Tensor, "o i"]:
        """(alpha / r) B A."""
        return self.scale * (self.up @ self.down)

    @property
    def weight(self) -> Float[Tensor, "o i"]:
        """W + (alpha / r) B A, in the type of W."""
        kept = self.base.weight
        return (kept.to(self.up.dtype) + self.correction).to(kept.dtype)

    @property
    def bias(self) -> Tensor | None:
        """The base's own."""
        return self.base.bias

    def forward(self, x: Float[Tensor, "*rows i"]) -> Float[Tensor, "*rows o"]:
        """Each row on its own: the correction costs two thin products, and W gets no gradient."""
        y = self.base(x)
        low = linear(x.to(self.down.dtype), self.down)
        return y + (self.scale * linear(low, self.up.to(low.dtype))).to(y.dtype)

    def merged(self) -> nn.Linear:
        """The base with the correction written into its weight, which is then a map like any other."""
        with torch.no_grad():
            self.base.weight.copy_(self.weight)
        return self.base
