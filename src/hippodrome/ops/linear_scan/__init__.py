"""Linear scan: h_t = a_t * h_{t-1} + x_t, elementwise over channels.

The recurrence under every diagonal state space model, run over time by the associative operator
(a, x) o (a', x') = (a a', a' x + x') (Blelloch 1990, "Prefix sums and their applications", section 1.4;
Smith, Warrington, Linderman 2022, arXiv 2208.04933, appendix H).
"""

from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.linear_scan import numba_, reference, torch_, triton_

BACKENDS = (triton_, numba_, torch_, reference)


def linear_scan(
    a: Float[Tensor, "b t d"] | Float[Tensor, "d"],
    x: Float[Tensor, "b t d"],
    initial_state: Float[Tensor, "b d"] | None = None,
    resets: Bool[Tensor, "b t"] | None = None,
    *,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d"]]:
    """All states h (b, t, d) in x's dtype, and the last one (b, d), at least float32.

    Args:
        a: decay of each step and channel, (b, t, d), or (d) where it is constant in time.
        x: input of each step and channel, (b, t, d).
        initial_state: h before the first step, (b, d); zero when None.
        resets: (b, t); where True, the state before that step is replaced by zero.
        backend: force one of "triton", "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    check_arguments(
        "linear_scan",
        {
            "x": (x, "b t d"),
            "a": (a, "d | b t d"),
            "initial_state": (initial_state, "b d"),
            "resets": (resets, "b t"),
        },
    )
    chosen = choose("linear_scan", BACKENDS, backend, a, x, initial_state, resets)
    return chosen.linear_scan(a, x, initial_state, resets)


def flops(b: int, t: int, d: int) -> int:
    """Multiplications and additions of one forward call."""
    return 2 * b * t * d


def bytes_moved(b: int, t: int, d: int, item: int = 4, *, constant: bool = False) -> int:
    """Bytes one forward call must read and write at least; ``constant`` where a is (d)."""
    decay = d if constant else b * t * d
    return item * (decay + (2 * t + 2) * b * d)
