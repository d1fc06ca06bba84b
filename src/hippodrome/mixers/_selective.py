"""What selective scans have in common beside the scan: the matrix that one is for given gates, its decays."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.ops.selective_scan import selective_scan


def unrolled(
    sizes: Float[Tensor, "b t e"], A: Tensor, B: Tensor, C: Tensor, resets: Tensor | None
) -> Float[Tensor, "b e t t"]:
    """Entry (i, j) of each channel: C_i exp(sum of dt A from j + 1 to i) B_j dt_j, by t scans of unit inputs.

    Args:
        sizes: step sizes as they enter the recurrence.
        A: rates, (e, n) or complex (e, n, 2).
        B: input vectors of tokens (b, t, ...), or constants.
        C: readout vectors, likewise.
        resets: (b, t).
    """
    b, t, e = sizes.shape

    def each(x: Any, constant: bool = False) -> Any:
        """Once for every unit input, where it is of tokens."""
        return x if x is None or constant else x.repeat_interleave(t, 0)

    unit = torch.eye(t, dtype=sizes.dtype, device=sizes.device)[None, :, :, None]
    unit = unit.expand(b, t, t, e).reshape(b * t, t, e)
    B, C = (m.to(sizes.dtype) for m in (B, C))
    y, _ = selective_scan(
        unit,
        each(sizes),
        A,
        each(B, B.dim() == A.dim()),
        each(C, C.dim() == A.dim()),
        None,
        None,
        None,
        None,
        each(resets),
    )
    return y.unflatten(0, (b, t)).permute(0, 3, 2, 1)


def log_decays(sizes: Float[Tensor, "b t e"], A: Tensor) -> Float[Tensor, "b t c"]:
    """dt Re A of every channel and state."""
    real = A if A.dim() == 2 else A[..., 0]
    return (sizes[..., None] * real).flatten(2)
