"""Dense linear scan: h_t = A_t h_{t-1} + v_t with a real matrix A of n rows and columns.

The recurrence of every discretized linear system whose matrix has no structure, constant in time or not
(Gu, Johnson, Goel, Saab, Dao, Rudra, Ré 2021, arXiv 2110.13985, section 2; Blelloch 1990, "Prefix sums and
their applications", section 1.4, for the parallel form).
"""

from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.dense_scan import reference, torch_

BACKENDS = (torch_, reference)


def dense_scan(
    A: Float[Tensor, "n n"] | Float[Tensor, "t n n"] | Float[Tensor, "b t n n"],
    v: Float[Tensor, "b t n"] | Float[Tensor, "b t r n"],
    initial_state: Float[Tensor, "b n"] | Float[Tensor, "b r n"] | None = None,
    resets: Bool[Tensor, "b t"] | None = None,
    *,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b t n"] | Float[Tensor, "b t r n"], Float[Tensor, "b n"] | Float[Tensor, "b r n"]]:
    """All states h in v's shape and dtype, and the last one, at least float32.

    Args:
        A: what multiplies the state at each step: (n, n) where it is constant, (t, n, n) where all rows
            share it, (b, t, n, n) where every row has its own.
        v: what is added at each step, (b, t, n); or (b, t, r, n) for r states a row under the same A.
        initial_state: h before the first step, v's shape without t; zero when None.
        resets: (b, t); where True, the state before that step is replaced by zero.
        backend: force one of "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    check_arguments(
        "dense_scan",
        {
            "v": (v, "b t n | b t r n"),
            "A": (A, "n n | t n n | b t n n"),
            "initial_state": (initial_state, "b n" if v.dim() == 3 else "b r n"),
            "resets": (resets, "b t"),
        },
    )
    chosen = choose("dense_scan", BACKENDS, backend, A, v, initial_state, resets)
    return chosen.dense_scan(A, v, initial_state, resets)


def flops(b: int, t: int, n: int, r: int = 1) -> int:
    """Real multiplications and additions of one forward call by its definition.

    A form parallel in time does more where A varies: about 2 n^3 for each matrix of A.
    """
    return 2 * b * t * r * n * n


def bytes_moved(
    b: int, t: int, n: int, r: int = 1, item: int = 4, *, constant: bool = False, shared: bool = False
) -> int:
    """Bytes one forward call must read and write at least.

    ``constant`` where A is (n, n), ``shared`` where it is (t, n, n).
    """
    matrices = 1 if constant else t if shared else b * t
    return item * (matrices * n * n + (2 * t + 2) * b * r * n)
