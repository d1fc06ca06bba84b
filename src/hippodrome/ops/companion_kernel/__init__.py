"""Kernels of a companion matrix: K_l = c A^l b, l = 0 .. length - 1, with A = S + a e_n^T.

S shifts down (ones below the diagonal), a is the last column, so that the characteristic polynomial is
z^n - a_{n-1} z^{n-1} - ... - a_0 (Zhang, Saab, Poli, Dao, Goel, Ré 2023, "Effectively modeling time series
with simple discrete state spaces", arXiv 2303.09489). The published way in O(n + length) up to logarithms
divides by z - q(e_n, a) at the roots of unity z, which vanishes where A has an eigenvalue there, and needs
c A^length. Here the same rational function is expanded as a power series: no quotient but 1 / (1 - x) with a
constant term of one, so there is nothing to vanish, and nothing wraps around.
"""

from jaxtyping import Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.companion_kernel import reference, torch_

BACKENDS = (torch_, reference)


def companion_kernel(
    a: Float[Tensor, "d n"],
    b: Float[Tensor, "d n"],
    c: Float[Tensor, "d m n"],
    length: int,
    *,
    backend: str | None = None,
) -> Float[Tensor, "d m length"]:
    """The first ``length`` values of every kernel, (d, m, length), in the dtype of c.

    Args:
        a: last column of each companion matrix, (d, n).
        b: what one input adds to the state, (d, n).
        c: output weights of m outputs each, (d, m, n).
        length: how many values.
        backend: force one of "torch", "reference"; None takes the first that can run.

    All is computed in float64: the powers of A are what a float32 would lose.

    Raises:
        ValueError: the length is below 1, a shape does not fit, or no backend can run these tensors.
    """
    if length < 1:
        raise ValueError(
            f"companion_kernel: a kernel has at least one value; got length {length}. Ask for 1 or more."
        )
    check_arguments("companion_kernel", {"a": (a, "d n"), "b": (b, "d n"), "c": (c, "d m n")})
    chosen = choose("companion_kernel", BACKENDS, backend, a, b, c)
    return chosen.companion_kernel(a, b, c, length)


def flops(d: int, n: int, length: int, m: int = 1) -> int:
    """Multiplications and additions of one forward call, about: transforms of twice the length and more."""
    points = 2 * length
    log = max(points - 1, 1).bit_length()
    # The inverse series takes six transforms at its last size and as many again before; each output three.
    return int(d * (12 + 3 * m) * 2.5 * points * log)


def bytes_moved(d: int, n: int, length: int, m: int = 1, item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return d * (2 * n + m * n + m * length) * item
