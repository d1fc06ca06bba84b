"""Cauchy product on the imaginary axis: k(w) = sum_n v_n / (i w - p_n) + conj(v_n) / (i w - conj(p_n)).

What the kernel of S4 is made of (Gu, Goel, Ré 2021, arXiv 2111.00396, section 3 and appendix C, the Cauchy
kernel). On the unit circle the bilinear rule's nodes are purely imaginary, so a conjugate pair is a rational
function with real coefficients, 2 (i w Re v - Re v conj(p)) / (|p|^2 - w^2 - 2 i w Re p): one reciprocal for
a pair, shared by all numerators over the same poles.
"""

from jaxtyping import Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.cauchy import numba_, reference, torch_

BACKENDS = (numba_, torch_, reference)


def cauchy(
    v: Float[Tensor, "d q n 2"],
    w: Float[Tensor, "l"],
    poles: Float[Tensor, "d n 2"],
    *,
    backend: str | None = None,
) -> Float[Tensor, "d q l 2"]:
    """The sums of q numerators at l nodes i w, (d, q, l, 2), in the dtype of v.

    Args:
        v: numerators, one of each conjugate pair, (d, q, n, 2).
        w: nodes on the imaginary axis, (l).
        poles: one of each conjugate pair, (d, n, 2), none of them at a node.
        backend: force one of "numba", "torch", "reference"; None takes the first that can run.

    Beside a float32 v, w and the poles may be float64: what is kept of them then is enough to tell a node
    from a pole that lies close to it.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    check_arguments("cauchy", {"v": (v, "d q n 2"), "w": (w, "l"), "poles": (poles, "d n 2")})
    chosen = choose("cauchy", BACKENDS, backend, v, w, poles)
    return chosen.cauchy(v, w, poles)


def flops(d: int, q: int, n: int, l: int) -> int:  # noqa: E741
    """Multiplications and additions of one forward call."""
    return d * n * l * (10 + 8 * q)


def bytes_moved(d: int, q: int, n: int, l: int, item: int = 4) -> int:  # noqa: E741
    """Bytes one forward call must read and write at least."""
    return (2 * d * n * (q + 1) + l + 2 * d * q * l) * item
