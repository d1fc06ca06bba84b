"""A linear map for each group of rows: y_r = W_g x_r for the rows r of group g, which lie side by side.

What a mixture of experts computes once its tokens are sorted by expert: the first ``counts[0]`` rows go
through the first matrix, the next ``counts[1]`` through the second. A group may be empty, and its matrix is
then not read.
"""

from jaxtyping import Float, Int
from torch import Tensor

from hippodrome.ops._door import choose
from hippodrome.ops.grouped_linear import reference, torch_

BACKENDS = (torch_, reference)


def grouped_linear(
    x: Float[Tensor, "n i"],
    weight: Float[Tensor, "g o i"],
    counts: Int[Tensor, "g"],
    *,
    backend: str | None = None,
) -> Float[Tensor, "n o"]:
    """Each group of rows through a matrix of its own, (n, o), in the dtype of x; sums are at least float32.

    One call of this costs as much arithmetic as a linear map of n rows, however many groups there are. Under
    a compiler and in an exported program it is one operator, since how the rows fall into groups is known
    only when it runs. On an accelerator the counts are read by the processor, which waits for them.

    Args:
        x: the rows, those of one group side by side, (n, i).
        weight: a matrix for each group, (g, o, i).
        counts: how many rows each group has, (g); they add up to n.
        backend: force one of "torch", "reference".

    Raises:
        ValueError: the counts do not add up to the rows, or the forced backend does not exist.
    """
    return choose("grouped_linear", BACKENDS, backend, x, weight, counts).grouped_linear(x, weight, counts)


def flops(n: int, i: int, o: int) -> int:
    """Multiplications and additions of these rows."""
    return 2 * n * i * o


def bytes_moved(n: int, i: int, o: int, groups: int, item: int = 4) -> int:
    """Bytes one call must read and write at least; ``groups`` counts those that are not empty."""
    return item * (groups * i * o + n * (i + o))
