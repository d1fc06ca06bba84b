"""Kernel of a diagonal system: k_j = Re sum_n c_n exp(j log_a_n), j = 0 .. length - 1.

A product with a Vandermonde matrix of the powers of a (Gu, Gupta, Goel, Ré 2022, arXiv 2206.11893, section
3). What a convolutional form convolves with, and what ``hippodrome inspect`` draws.
"""

from jaxtyping import Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.vandermonde import reference, torch_

BACKENDS = (torch_, reference)


def vandermonde(
    log_a: Float[Tensor, "d n 2"], c: Float[Tensor, "d n 2"], length: int, *, backend: str | None = None
) -> Float[Tensor, "d length"]:
    """The first ``length`` values of each channel's kernel, (d, length).

    Args:
        log_a: logarithm of each mode's factor per step, (d, n, 2): real part (decay), imaginary part (angle).
        c: weight of each mode, (d, n, 2), the input and output weights and a factor 2 for conjugate pairs
            already multiplied in.
        length: how many values.

    Raises:
        ValueError: the length is below 1, a shape does not fit, or no backend can run these tensors.
    """
    if length < 1:
        raise ValueError(
            f"vandermonde: a kernel has at least one value; got length {length}. Ask for 1 or more."
        )
    check_arguments("vandermonde", {"log_a": (log_a, "d n 2"), "c": (c, "d n 2")})
    chosen = choose("vandermonde", BACKENDS, backend, log_a, c)
    return chosen.vandermonde(log_a, c, length)


def flops(d: int, n: int, length: int) -> int:
    """Multiplications and additions of one forward call."""
    return 4 * d * n * length


def bytes_moved(d: int, n: int, length: int, item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return d * (4 * n + length) * item
