"""Dense time-invariant systems: x_k = A x_{k-1} + B u_k, y_k = C x_k + D u_k, one for each channel.

One bank of real single-input systems with n states and m outputs each, the system of the linear state space
layer (Gu, Johnson, Goel, Saab, Dao, Rudra, Ré 2021, arXiv 2110.13985, section 3) and of S4 in a real basis.
Neither a kernel of length t nor the states of all steps are formed: time is cut into chunks, a chunk's
outputs are products of small matrices with its inputs and with the state that enters it.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.dense_lti import reference, torch_

BACKENDS = (torch_, reference)


def dense_lti(
    u: Float[Tensor, "b t d"],
    A: Float[Tensor, "d n n"],
    B: Float[Tensor, "d n"],
    C: Float[Tensor, "d m n"],
    initial_state: Float[Tensor, "b d n"] | None = None,
    resets: Bool[Tensor, "b t"] | None = None,
    skip: Float[Tensor, "d m"] | None = None,
    *,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b t d m"], Float[Tensor, "b d n"]]:
    """Outputs y (b, t, d, m) and the last state (b, d, n).

    Args:
        u: input, (b, t, d).
        A: what one step does to each channel's state, (d, n, n): already discrete.
        B: what one input adds to the state, (d, n): already discrete.
        C: output weights, (d, m, n).
        initial_state: x before the first step, (b, d, n); zero when None.
        resets: (b, t); where True, the state before that step is replaced by zero.
        skip: D, (d, m); 0 when None.
        backend: force one of "torch", "reference"; None takes the first that can run.

    The state and all sums are float32 at least, powers of A are taken in float64 whatever its dtype, so that
    A, B and C may be float64 beside a float32 u. y has the dtype of u.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    check_arguments(
        "dense_lti",
        {
            "u": (u, "b t d"),
            "A": (A, "d n n"),
            "B": (B, "d n"),
            "C": (C, "d m n"),
            "initial_state": (initial_state, "b d n"),
            "resets": (resets, "b t"),
            "skip": (skip, "d m"),
        },
    )
    chosen = choose("dense_lti", BACKENDS, backend, u, A, B, C, initial_state, resets, skip)
    return chosen.dense_lti(u, A, B, C, initial_state, resets, skip)


def flops(b: int, t: int, d: int, n: int, m: int = 1, chunk: int = 64) -> int:
    """Multiplications and additions of one forward call in chunks of time."""
    chunks = -(-t // chunk)
    squarings = chunk.bit_length() - 1 + chunks.bit_length()
    return 2 * b * t * d * (m * chunk + n + m * n) + 4 * b * chunks * d * n * n + 2 * squarings * d * n**3


def bytes_moved(b: int, t: int, d: int, n: int, m: int = 1, item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return ((1 + m) * b * t * d + 2 * b * d * n + d * n * (n + 1 + m) + d * m) * item
