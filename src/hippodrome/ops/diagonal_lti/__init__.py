"""Diagonal time-invariant system: h_t = exp(log_a) h_{t-1} + u_t, y_t = Re sum_n w_n h_t,n + skip u_t.

One bank of n complex modes for every channel, the layer of S4D and of everything that keeps A diagonal
(Gu, Gupta, Goel, Ré 2022, arXiv 2206.11893, equations 1 to 3). Neither a kernel of length t nor the states of
all steps are formed: time is cut into chunks, a chunk's outputs are products of small matrices with its
inputs and with the state that enters it (the chunked form of Dao, Gu 2024, arXiv 2405.21060, section 6, for
a system that does not change with time).
"""

from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.diagonal_lti import numba_, reference, torch_

BACKENDS = (numba_, torch_, reference)


def diagonal_lti(
    u: Float[Tensor, "b t d"],
    log_a: Float[Tensor, "d n 2"],
    w: Float[Tensor, "d n 2"],
    initial_state: Float[Tensor, "b d n 2"] | None = None,
    resets: Bool[Tensor, "b t"] | None = None,
    skip: Float[Tensor, "d"] | None = None,
    *,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d n 2"]]:
    """Outputs y (b, t, d) and the last state (b, d, n, 2).

    Args:
        u: input, (b, t, d).
        log_a: logarithm of each mode's factor per step, (d, n, 2): real part (not above 0 for a stable
            system), imaginary part (the angle per step).
        w: weight of each mode, (d, n, 2), input and output weight together; for conjugate pairs the
            factor 2 is already in it.
        initial_state: h before the first step, (b, d, n, 2); zero when None.
        resets: (b, t); where True, the state before that step is replaced by zero.
        skip: weight of the input in the output, (d); 0 when None.
        backend: force one of "numba", "torch", "reference"; None takes the first that can run.

    The state and all sums are float32 at least; y has the dtype of u, and bfloat16 is read and written as it
    lies.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    check_arguments(
        "diagonal_lti",
        {
            "u": (u, "b t d"),
            "log_a": (log_a, "d n 2"),
            "w": (w, "d n 2"),
            "initial_state": (initial_state, "b d n 2"),
            "resets": (resets, "b t"),
            "skip": (skip, "d"),
        },
    )
    chosen = choose("diagonal_lti", BACKENDS, backend, u, log_a, w, initial_state, resets, skip)
    return chosen.diagonal_lti(u, log_a, w, initial_state, resets, skip)


def flops(b: int, t: int, d: int, n: int, chunk: int = 64) -> int:
    """Multiplications and additions of one forward call in chunks of time."""
    return b * t * d * (chunk + 1 + 8 * n)


def bytes_moved(b: int, t: int, d: int, n: int, item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return (2 * b * t * d + 4 * b * d * n + 6 * d * n) * item
