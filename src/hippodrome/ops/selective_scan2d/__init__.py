"""Selective scan over a grid: two states in every cell, chosen by its input, read out where they are made.

f1 = exp(dt1 A1) - 1 and f2 = exp(dt2 A2) - 1 in each cell, channel and number, and
h1[v, t] = (1 + f1) h1[v, t-1] - f1 K1 h2[v, t-1] + f1 / A1 B1 x   (along time),
h2[v, t] = (1 + f2) h2[v-1, t] - f2 K2 h1[v-1, t] + f2 / A2 B2 x   (along the variates),
y[v, t] = C1 . h1[v, t] + C2 . h2[v, t].

The recurrence of Chimera (Behrouz, Santacatterina, Zabih 2024, "Chimera: effectively modeling multivariate
time series with 2-dimensional state space models", arXiv 2406.04320, section 3) with diagonal matrices, by
zero-order hold: what comes from the other state is an input held over the step, as B x is. It is
``ops.scan2d`` with its coefficients made on the way, so that nothing of the size of all states is written but
what a gradient needs.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.selective_scan2d import numba_, reference, torch_

BACKENDS = (numba_, torch_, reference)


def selective_scan2d(
    x: Float[Tensor, "b t v d"],
    dt: Float[Tensor, "b t v 2 d"],
    A: Float[Tensor, "2 d n"],
    K: Float[Tensor, "2 d n"],
    B: Float[Tensor, "b t v 2 n"],
    C: Float[Tensor, "b t v 2 n"],
    initial_state: Float[Tensor, "b v 2 d n"] | None = None,
    resets: Bool[Tensor, "b t"] | None = None,
    *,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b t v d"], Float[Tensor, "b v 2 d n"]]:
    """Outputs y (b, t, v, d) in x's dtype, and the states of the last time (b, v, 2, d, n), at least float32.

    Args:
        x: inputs of each cell, (b, t, v, d).
        dt: step sizes along time and along the variates, positive, (b, t, v, 2, d).
        A: rates of both states, negative, (2, d, n).
        K: share of the other state that is held over the step, within (-1, 1) for a stable system; zero for
            two scans that do not meet; (2, d, n).
        B: input vectors of both states, one for all channels, (b, t, v, 2, n).
        C: output vectors of both states, (b, t, v, 2, n).
        initial_state: h1, h2 before the first time, (b, v, 2, d, n); zero when None.
        resets: (b, t); where True, the states of all variates before that time are replaced by zero.
        backend: force one of "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, there is no time, or no backend can run these tensors; the
            message says why.
    """
    check_arguments(
        "selective_scan2d",
        {
            "x": (x, "b t v d"),
            "dt": (dt, "b t v 2 d"),
            "A": (A, "2 d n"),
            "K": (K, "2 d n"),
            "B": (B, "b t v 2 n"),
            "C": (C, "b t v 2 n"),
            "initial_state": (initial_state, "b v 2 d n"),
            "resets": (resets, "b t"),
        },
    )
    if x.shape[1] == 0:
        raise ValueError(
            f"selective_scan2d: x must have one time or more; got shape {tuple(x.shape)}. Leave the call "
            "out: over no time the states stay as they are."
        )
    arguments = (x, dt, A, K, B, C, initial_state, resets)
    return choose("selective_scan2d", BACKENDS, backend, *arguments).selective_scan2d(*arguments)


def flops(b: int, t: int, v: int, d: int, n: int) -> int:
    """Operations of one forward call; an exponential, an addition, a multiplication count one each."""
    return 24 * b * t * v * d * n


def bytes_moved(b: int, t: int, v: int, d: int, n: int, item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return item * (b * t * v * (4 * d + 4 * n) + 4 * b * v * d * n + 4 * d * n)
