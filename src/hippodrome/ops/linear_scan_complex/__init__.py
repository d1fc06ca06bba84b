"""Complex linear scan: h_t = a_t h_{t-1} + x_t with complex a, x and h held as real pairs.

The recurrence of diagonal state space models with complex spectra, S4D, S5 and LRU among them (Gu, Gupta,
Goel, Ré 2022, arXiv 2206.11893, section 3; Orvieto et al. 2023, arXiv 2303.06349, equation 4).
"""

from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.linear_scan_complex import numba_, reference, torch_, triton_

BACKENDS = (triton_, numba_, torch_, reference)


def linear_scan_complex(
    a: Float[Tensor, "b t d 2"] | Float[Tensor, "d 2"],
    x: Float[Tensor, "b t d 2"],
    initial_state: Float[Tensor, "b d 2"] | None = None,
    resets: Bool[Tensor, "b t"] | None = None,
    *,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b t d 2"], Float[Tensor, "b d 2"]]:
    """All states h (b, t, d, 2) in x's dtype, and the last one (b, d, 2), at least float32.

    Args:
        a: decay of each step and channel, (b, t, d, 2), or (d, 2) where it is constant in time.
        x: input of each step and channel, (b, t, d, 2).
        initial_state: h before the first step, (b, d, 2); zero when None.
        resets: (b, t); where True, the state before that step is replaced by zero.
        backend: force one of "triton", "numba", "torch", "reference"; None takes the first that can run.

    The trailing axis of 2 holds real and imaginary part.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    check_arguments(
        "linear_scan_complex",
        {
            "x": (x, "b t d 2"),
            "a": (a, "d 2 | b t d 2"),
            "initial_state": (initial_state, "b d 2"),
            "resets": (resets, "b t"),
        },
    )
    chosen = choose("linear_scan_complex", BACKENDS, backend, a, x, initial_state, resets)
    return chosen.linear_scan_complex(a, x, initial_state, resets)


def flops(b: int, t: int, d: int) -> int:
    """Real multiplications and additions of one forward call."""
    return 8 * b * t * d


def bytes_moved(b: int, t: int, d: int, item: int = 4, *, constant: bool = False) -> int:
    """Bytes one forward call must read and write at least; ``constant`` where a is (d, 2)."""
    decay = d if constant else b * t * d
    return 2 * item * (decay + (2 * t + 2) * b * d)
