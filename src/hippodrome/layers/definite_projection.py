"""The map to a selective layer's step sizes, B and C, tied so that depth drives tokens one way."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.ops.linear import linear

SIGNS = ("positive", "negative", "mixed")
MARGIN = 0.7
"""Added to the scales, so that none of them fades to nothing."""


class DefiniteProjection(nn.Linear):
    """x W^T with rows [low | B | C] of W such that C^T B is definite: S_C = P, S_B = diag(s) P.

    P is the raw map of B with zeros below its diagonal and ones on it, so its rows stay independent whatever
    is learned, and s are scales of one sign: S_C^T S_B = P^T diag(s) P then has n eigenvalues of that sign
    and no others. "positive" (softplus + 0.7) keeps tokens out of the convergent scenario, "negative" keeps
    them in it, "mixed" gives the first half of the scales one sign and the rest the other (softplus alone).
    Vo, Pham, Tong, Nguyen 2025, "Demystifying the token dynamics of deep selective state space models", arXiv
    2410.03292; the constants are those of their code. The scales stand in the first column of the raw map of
    C, whose other columns do nothing.

    Args:
        channels: in.
        rank: rows that are left as they are.
        d_state: n, rows of B and of C.
        sign: "positive", "negative" or "mixed".

    Raises:
        ValueError: an unknown sign, or more states than channels, for which no such rows are independent.
    """

    def __init__(self, channels: int, rank: int, d_state: int, sign: str) -> None:
        if sign not in SIGNS:
            raise ValueError(f"the sign of the dynamics is one of {', '.join(SIGNS)}; got {sign!r}.")
        if d_state > channels:
            raise ValueError(
                f"definite dynamics need at least as many channels as states; got {channels} channels and "
                f"{d_state} states. Take a smaller d_state."
            )
        super().__init__(channels, rank + 2 * d_state, bias=False)
        self.rank, self.d_state, self.sign = rank, d_state, sign

    def maps(self) -> tuple[Float[Tensor, "n e"], Float[Tensor, "n e"]]:
        """S_B and S_C."""
        raw, scales = self.weight[self.rank :].split(self.d_state)
        P = raw.triu(1) + torch.eye(*raw.shape, dtype=raw.dtype, device=raw.device)
        s = F.softplus(scales[:, 0])
        if self.sign == "mixed":
            s = torch.where(torch.arange(self.d_state, device=s.device) < self.d_state // 2, s, -s)
        else:
            s = s + MARGIN if self.sign == "positive" else -s - MARGIN
        return s[:, None] * P, P

    def forward(self, x: Float[Tensor, "*tokens e"]) -> Float[Tensor, "*tokens r"]:
        """The step sizes' part, B and C of each token, side by side."""
        return linear(x, torch.cat([self.weight[: self.rank], *self.maps()]))
