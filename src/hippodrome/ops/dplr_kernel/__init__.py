"""The kernel of S4: a diagonal system less one of low rank, A = Lambda - P Q^*, under the bilinear rule.

K_j = C Abar^j Bbar for j = 0 .. length - 1, from the values of its generating function at the roots of unity
(Gu, Goel, Ré 2021, arXiv 2111.00396, section 3, equations of the truncated generating function, and
algorithm 1). There it is 2 / (1 + z) C~ (g(z) - A)^-1 B with g(z) = (2 / dt) (1 - z) / (1 + z), and with
R = (g - Lambda)^-1 and Woodbury's identity four kinds of Cauchy sums,

    C~ R B - C~ R P (1 + Q^* R P)^-1 Q^* R B,      C~ = C (1 - Abar^length),

then an inverse Fourier transform. No power of Abar is taken: what is handed in is C~, the trained parameter
of the published layer. ``dense`` has the way from C and back to it.
"""

from jaxtyping import Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.dplr_kernel import numba_, reference, torch_

BACKENDS = (numba_, torch_, reference)


def dplr_kernel(
    poles: Float[Tensor, "d n 2"],
    P: Float[Tensor, "d r n 2"],
    Q: Float[Tensor, "d r n 2"],
    B: Float[Tensor, "d n 2"],
    C: Float[Tensor, "d n 2"],
    step: Float[Tensor, "d"],
    length: int,
    *,
    backend: str | None = None,
) -> Float[Tensor, "d length"]:
    """The first ``length`` values of each channel's kernel, (d, length), in the dtype of C.

    Args:
        poles: Lambda, one of each conjugate pair, (d, n, 2), real parts below 0.
        P: columns of the low-rank part, (d, r, n, 2).
        Q: the other columns, (d, r, n, 2); P itself for a system stable by construction.
        B: input weights, (d, n, 2).
        C: output weights truncated at this length, C (1 - Abar^length), (d, n, 2).
        step: dt, (d), positive.
        length: how many values.
        backend: force one of "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: the length is below 1, a shape does not fit, or no backend can run these tensors.
    """
    if length < 1:
        raise ValueError(
            f"dplr_kernel: a kernel has at least one value; got length {length}. Ask for 1 or more."
        )
    check_arguments(
        "dplr_kernel",
        {
            "poles": (poles, "d n 2"),
            "P": (P, "d r n 2"),
            "Q": (Q, "d r n 2"),
            "B": (B, "d n 2"),
            "C": (C, "d n 2"),
            "step": (step, "d"),
        },
    )
    chosen = choose("dplr_kernel", BACKENDS, backend, poles, P, Q, B, C, step)
    return chosen.dplr_kernel(poles, P, Q, B, C, step, length)


def flops(d: int, n: int, length: int, r: int = 1) -> int:
    """Multiplications and additions of one forward call, the Fourier transform apart."""
    return d * (length // 2 + 1) * (n * (10 + 8 * (1 + r) ** 2) + 20 * r * (r + 1) * (2 * r + 1) // 6)


def bytes_moved(d: int, n: int, length: int, r: int = 1, item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return d * (2 * n * (3 + 2 * r) + length) * item
