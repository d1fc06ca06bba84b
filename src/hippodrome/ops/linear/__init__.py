"""A linear map: y = x W^T + bias.

A few rows, as in decoding one token, are bound by the bytes of W, which a kernel of ours reads once:
PyTorch's product of a matrix with one row runs on one thread at a third of the memory's speed, and for
bfloat16 slower still. Many rows are a library's to multiply, by the faster of the two that PyTorch holds.
"""

from jaxtyping import Float
from torch import Tensor

from hippodrome.ops._door import choose, watched
from hippodrome.ops.linear import numba_, onednn_, reference, torch_

BACKENDS = (numba_, onednn_, torch_, reference)


def linear(
    x: Float[Tensor, "*rows i"],
    weight: Float[Tensor, "o i"],
    bias: Float[Tensor, "o"] | None = None,
    *,
    backend: str | None = None,
) -> Float[Tensor, "*rows o"]:
    """The rows of x through one linear map, (..., o), in the dtype of x; sums are at least float32.

    The kernel takes calls that need no gradient, of few rows; oneDNN takes large ones in float32, and their
    gradients. All others, and any under a compiler or autocast, are ``torch.nn.functional.linear``.

    Args:
        x: any number of rows, (..., i).
        weight: (o, i).
        bias: (o).
        backend: force one of "numba", "onednn", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: the forced backend cannot run these tensors; the message says why.
    """
    if backend is None and not watched():
        # The usual way in, once for each product of a token: no list of refusals is made.
        for usual in (numba_, onednn_):
            if usual.refusal(x, weight, bias) is None:
                return usual.linear(x, weight, bias)
        return torch_.linear(x, weight, bias)
    return choose("linear", BACKENDS, backend, x, weight, bias).linear(x, weight, bias)


def flops(rows: int, i: int, o: int) -> int:
    """Multiplications and additions of these rows."""
    return 2 * rows * i * o


def bytes_moved(rows: int, i: int, o: int, item: int = 4) -> int:
    """Bytes one call must read and write at least."""
    return item * (i * o + rows * (i + o))
