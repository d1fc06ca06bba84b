"""A diagonal system less one of low rank as real matrices, one step of it, and its output weights truncated.

A state of n conjugate pairs, (n, 2) with one of each pair kept, is 2 n real numbers: real and imaginary part
in turn. There Lambda is 2 x 2 blocks, P a real column p, and Q^* x, a sum over both halves, the real row q
with q = 2 Q. All in the dtype handed in: float64 where powers follow.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.ops import _pairs
from hippodrome.ops.dense_lti.torch_ import power

_ROWS = 16
"""Products of a row with a matrix, up to twice as many, that cost less than the squarings they spare."""
Modes = Float[Tensor, "*banks n 2"]
Columns = Float[Tensor, "*banks r n 2"]
Square = Float[Tensor, "*banks m m"]


def blocks(x: Modes) -> Square:
    """The real matrix of a product with each of n complex numbers, (..., 2n, 2n)."""
    re, im = torch.diag_embed(x[..., 0]), torch.diag_embed(x[..., 1])
    rows = [torch.stack([re, -im], -1), torch.stack([im, re], -1)]  # each (..., n, n, 2)
    return torch.stack(rows, -3).flatten(-2).flatten(-3, -2)


def matrix(poles: Modes, P: Columns, Q: Columns) -> Square:
    """A = Lambda - P Q^*, (..., 2n, 2n)."""
    return blocks(poles) - P.flatten(-2).mT @ (2 * Q.flatten(-2))


def output(C: Modes) -> Float[Tensor, "*banks m"]:
    """The real row of 2 Re C x, (..., 2n)."""
    return (2 * C * C.new_tensor([1.0, -1.0])).flatten(-2)


def pairs_of_output(row: Float[Tensor, "*banks m"]) -> Modes:
    """C with ``output(C)`` equal to ``row``."""
    return 0.5 * row.unflatten(-1, (-1, 2)) * row.new_tensor([1.0, -1.0])


def bilinear(
    poles: Modes, P: Columns, Q: Columns, B: Modes, step: Float[Tensor, "*banks"]
) -> tuple[Square, Float[Tensor, "*banks m"]]:
    """Abar (..., 2n, 2n) and Bbar (..., 2n) of one step, by Woodbury's identity.

    With E = (1 - dt A / 2)^-1 they are 2 E - 1 and dt E B.
    """
    half = 0.5 * step[..., None, None]
    one = poles.new_tensor([1.0, 0.0])
    inverse = _pairs.over(one.expand_as(poles), one - half * poles)
    column = _pairs.times(inverse[..., None, :, :], half[..., None] * P).flatten(-2)
    mirrored = inverse * poles.new_tensor([1.0, -1.0])
    row = 2 * _pairs.times(mirrored[..., None, :, :], Q).flatten(-2)
    small = torch.eye(P.shape[-3], dtype=P.dtype, device=P.device) + 2 * Q.flatten(-2) @ column.mT
    whole = blocks(inverse) - column.mT @ torch.linalg.solve(small, row)
    eye = torch.eye(whole.shape[-1], dtype=whole.dtype, device=whole.device)
    return 2 * whole - eye, step[..., None] * (whole @ B.flatten(-2)[..., None])[..., 0]


def truncate(C: Modes, Abar: Square, length: int) -> Modes:
    """C (1 - Abar^length), by squaring: what ``dplr_kernel`` takes for a kernel of this length."""
    row = output(C)[..., None, :]
    return pairs_of_output((row - _after(row, Abar, length))[..., 0, :])


def lengthen(truncated: Modes, Abar: Square, length: int) -> Modes:
    """C truncated at twice the length from C truncated at ``length``: C~ (1 + Abar^length)."""
    row = output(truncated)[..., None, :]
    return pairs_of_output((row + _after(row, Abar, length))[..., 0, :])


def untruncate(truncated: Modes, Abar: Square, length: int) -> Modes:
    """C from C truncated at ``length``: ill-conditioned where that many steps forget little."""
    eye = torch.eye(Abar.shape[-1], dtype=Abar.dtype, device=Abar.device)
    row = output(truncated)[..., None, :]
    return pairs_of_output(torch.linalg.solve(eye - _power(Abar, length), row, left=False)[..., 0, :])


def _after(row: Tensor, A: Tensor, exponent: int) -> Tensor:
    """row A^exponent; the last squarings cost more than the rows they spare, so they are not done."""
    squarings = max(0, exponent.bit_length() - _ROWS.bit_length())
    for bit in range(squarings):
        if exponent >> bit & 1:
            row = row @ A
        A = A @ A
    for _ in range(exponent >> squarings):
        row = row @ A
    return row


def _power(A: Tensor, exponent: int) -> Tensor:
    squares = [A]
    while 1 << len(squares) <= exponent:
        squares.append(squares[-1] @ squares[-1])
    return power(squares, exponent)
