"""A linear map whose weights are int8: y_o = s_o sum_i q_oi x_i + bias_o, with one scale for each output.

Symmetric rounding of each row of a matrix W to the nearest of 255 numbers: s_o = max_i |w_oi| / 127 and
q_oi = round(w_oi / s_o), so no weight is off by more than s_o / 2 (the 8-bit form with one scale for each row
that Dettmers et al. 2022, "LLM.int8()", arXiv 2208.07339, section 2, call vector-wise and absmax). What is
multiplied by stays in its own precision, and so do the sums: weights alone are rounded.

A few rows, as in decoding one token, are bound by the bytes of the weights, which a kernel reads once. For
many rows, tiles of the weights are widened and given to the product of ``ops.linear``.
"""

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from hippodrome.ops._door import choose, watched
from hippodrome.ops.quantized_linear import numba_, reference, tiled_, torch_

BACKENDS = (numba_, tiled_, torch_, reference)
LARGEST = 127


def quantized_linear(
    x: Float[Tensor, "*rows i"],
    weight: Int8[Tensor, "o i"],
    scale: Float[Tensor, "o"],
    bias: Float[Tensor, "o"] | None = None,
    *,
    backend: str | None = None,
) -> Float[Tensor, "*rows o"]:
    """The rows of x through one linear map, (..., o), in the dtype of x; sums are at least float32.

    The kernel takes up to eight rows and the tiles any number, on the CPU where no gradient is wanted. All
    other calls are plain PyTorch, which has gradients of x, scale and bias.

    Args:
        x: any number of rows, (..., i).
        weight: q, (o, i), int8.
        scale: s, (o), float32.
        bias: (o), in the dtype of x.
        backend: force one of "numba", "tiled", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: weight is not int8 or not (o, i), scale not (o), or the forced backend cannot run these
            tensors; the message says why.
    """
    if weight.dtype != torch.int8 or weight.dim() != 2 or scale.shape != weight.shape[:1]:
        raise ValueError(
            f"quantized_linear: weight must be (o, i) in int8 and scale (o); got {tuple(weight.shape)} in "
            f"{weight.dtype} and {tuple(scale.shape)}. ``rounded`` makes both of a matrix."
        )
    if x.shape[-1:] != weight.shape[1:]:
        raise ValueError(
            f"quantized_linear: x must be (..., {weight.shape[1]}) for these weights; got {tuple(x.shape)}."
        )
    if backend is None and not watched():
        # The usual way in, once for each product of a token: no list of refusals is made.
        for usual in (numba_, tiled_):
            if usual.refusal(x, weight, scale, bias) is None:
                return usual.quantized_linear(x, weight, scale, bias)
        return torch_.quantized_linear(x, weight, scale, bias)
    found = choose("quantized_linear", BACKENDS, backend, x, weight, scale, bias)
    return found.quantized_linear(x, weight, scale, bias)


def quantized_rows(
    ids: Int[Tensor, "*ids"], weight: Int8[Tensor, "o i"], scale: Float[Tensor, "o"], dtype: torch.dtype
) -> Float[Tensor, "*ids i"]:
    """Rows of the table s q by their numbers, (..., i), in ``dtype``: the lookup of an int8 embedding.

    Raises:
        IndexError: a number that is no row of the table.
    """
    if numba_.rows_refusal(ids, weight, scale, dtype) is None:
        return numba_.quantized_rows(ids, weight, scale, dtype)
    return torch_.quantized_rows(ids, weight, scale, dtype)


def rounded(weight: Float[Tensor, "*rows i"]) -> tuple[Int8[Tensor, "*rows i"], Float[Tensor, "*rows"]]:
    """q and s of a matrix, or of a stack of them: the nearest int8 to each row over its scale, in float32.

    A row of zeros has the scale 0.

    Raises:
        ValueError: a weight is infinite or not a number.
    """
    wide = weight.detach().float()
    scale = wide.abs().amax(-1) / LARGEST
    if not bool(scale.isfinite().all()):
        raise ValueError("a weight is infinite or not a number, and no int8 stands for that.")
    return (wide / scale.clamp(min=torch.finfo(torch.float32).tiny)[..., None]).round_().to(torch.int8), scale


def flops(rows: int, i: int, o: int) -> int:
    """Multiplications and additions of these rows."""
    return 2 * rows * i * o + rows * o


def bytes_moved(rows: int, i: int, o: int, item: int = 4) -> int:
    """Bytes one call must read and write at least, x and y having ``item`` each."""
    return i * o + 4 * o + item * rows * (i + o)
