"""Scan over a grid: two states in every cell, one that comes along time, one that comes along the variates.

h1[v, t] = a1[v, t] h1[v, t-1] + a2[v, t] h2[v, t-1] + u1[v, t]   (along time),
h2[v, t] = a3[v, t] h1[v-1, t] + a4[v, t] h2[v-1, t] + u2[v, t]   (along the variates),

elementwise over channels, each a and u that of the cell written to. It is the discrete model of a system in
two dimensions of Roesser (1975, "A discrete state-space model for linear image processing", IEEE Transactions
on Automatic Control 20), with diagonal matrices: the recurrence of Chimera (Behrouz, Santacatterina, Zabih
2024, "Chimera: effectively modeling multivariate time series with 2-dimensional state space models", arXiv
2406.04320). With a2 = a3 = 0 it is two linear scans that do not meet. With nonnegative a that are alike in
all cells it is stable where a2 a3 < (1 - a1)(1 - a4).
"""

from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.scan2d import numba_, reference, torch_

BACKENDS = (numba_, torch_, reference)


def scan2d(
    a: Float[Tensor, "b t v 4 d"] | Float[Tensor, "4 d"],
    u: Float[Tensor, "b t v 2 d"],
    initial_state: Float[Tensor, "b v 2 d"] | None = None,
    edge: Float[Tensor, "b t 2 d"] | None = None,
    resets: Bool[Tensor, "b t"] | None = None,
    *,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b t v 2 d"], Float[Tensor, "b v 2 d"]]:
    """All states h (b, t, v, 2, d) in u's dtype, and those of the last time (b, v, 2, d), at least float32.

    The states behind the last variate, from which a grid goes on along the variates, are h[:, :, -1].

    Args:
        a: a1, a2, a3, a4 of each cell and channel, (b, t, v, 4, d), or (4, d) where all cells are alike.
        u: u1, u2 of each cell and channel, (b, t, v, 2, d).
        initial_state: h1, h2 before the first time, (b, v, 2, d); zero when None.
        edge: h1, h2 in front of the first variate, (b, t, 2, d); zero when None.
        resets: (b, t); where True, the states of all variates before that time are replaced by zero.
        backend: force one of "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    check_arguments(
        "scan2d",
        {
            "u": (u, "b t v 2 d"),
            "a": (a, "4 d | b t v 4 d"),
            "initial_state": (initial_state, "b v 2 d"),
            "edge": (edge, "b t 2 d"),
            "resets": (resets, "b t"),
        },
    )
    chosen = choose("scan2d", BACKENDS, backend, a, u, initial_state, edge, resets)
    return chosen.scan2d(a, u, initial_state, edge, resets)


def flops(b: int, t: int, v: int, d: int) -> int:
    """Multiplications and additions of one forward call."""
    return 8 * b * t * v * d


def bytes_moved(b: int, t: int, v: int, d: int, item: int = 4, *, constant: bool = False) -> int:
    """Bytes one forward call must read and write at least; ``constant`` where a is (4, d)."""
    decay = 4 * d if constant else 4 * b * t * v * d
    return item * (decay + 4 * b * t * v * d + 4 * b * v * d)
