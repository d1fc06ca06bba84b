"""The quasiseparable product: a semiseparable matrix on each side of a free diagonal, by one call of SSD."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.backbones._pieces import backwards, shifted
from hippodrome.ops.ssd import ssd_packed


def quasiseparable(
    x: Float[Tensor, "b t e"],
    ahead: Float[Tensor, "b t c"],
    back: Float[Tensor, "b t c"],
    steps: Float[Tensor, "b t h2"],
    A: Float[Tensor, "h"],
    diagonal: Float[Tensor, "b t h"],
    resets: Bool[Tensor, "b t"] | None = None,
    *,
    groups: int,
    d_state: int,
    chunk: int = 64,
) -> Float[Tensor, "b t e"]:
    """y = M x in each head, with M_ij = c_{i-1}^T (prod_{j<k<i} exp(dt_k A)) b_j dt_j below the diagonal, the
    mirror image with parameters of its own above it, and ``diagonal`` on it.

    Hwang, Lahoti, Dao, Gu 2024, "Hydra: bidirectional state space models through generalized matrix mixers",
    arXiv 2407.09941, the quasiseparable matrix mixer. Both triangles are one call over a batch twice as
    large, whose output is shifted by a token: a token's own part is the diagonal's.

    Args:
        x: what is mixed, (b, t, h p).
        ahead: B and C of the lower triangle, (b, t, 2 g n), as they stand at their own token.
        back: those of the upper triangle, likewise.
        steps: positive step sizes of the lower triangle, then of the upper, (b, t, 2 h).
        A: decay rate of each head, negative, (h).
        diagonal: (b, t, h).
        resets: where pieces begin, which see nothing of each other.
        groups: g, of heads that share B and C.
        d_state: n.
        chunk: tokens handled as one block of matrix products.
    """
    b, heads = x.shape[0], A.shape[0]
    marks, _ = backwards(x, resets, None)
    both = torch.cat([torch.cat([x, ahead], -1), torch.cat([x, back], -1).flip(1)])
    sizes = torch.cat([steps[..., :heads], steps[..., heads:].flip(1)])
    pieces = None if resets is None or marks is None else torch.cat([resets, marks])
    y, _ = ssd_packed(both, sizes, A, None, None, pieces, groups=groups, d_state=d_state, chunk=chunk)
    y = shifted(y, pieces)
    own = diagonal.to(x.dtype)[..., None] * x.unflatten(-1, (heads, -1))
    return (y[:b] + y[b:].flip(1) + own).flatten(-2)
