"""Dense time-invariant systems in plain PyTorch: batched matrix products over chunks of time.

With a chunk's inputs as a row, (d, b * chunks, L): its own outputs are a product with the Toeplitz matrix of
the kernel's first L values, the state it ends in a product with V = A^(L-1-j) B, what the state that enters
it adds to its outputs a product with W = C A^(i+1). V and W come from log2(L) products by doubling: the
columns known so far, times the power of A that takes them past themselves. Only the states at the ends of
chunks run through a scan, in log2(t / L) halvings with A^L squared at each.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hippodrome.ops.diagonal_lti.torch_ import toeplitz

NAME = "torch"

CHUNK = 64
RESET_CHUNK = 16  # a chunk that may hold resets pays one pass over its inputs for every lag


class Tables(NamedTuple):
    """What a chunk of L steps needs."""

    enter: Tensor  # (d, L, n): row j takes input j to the state after the chunk's last step
    leave: Tensor  # (d, m, n, L): column i takes the state before the chunk to output i
    kernel: Tensor  # (d, m, L)
    over: Tensor  # (d, n, n): A^L, in float64


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def krylov(A: Tensor, B: Tensor, length: int | torch.SymInt) -> tuple[Tensor, list[Tensor]]:
    """[B, A B, ..., A^(length-1) B] as (..., n, length) by doubling, and A, A^2, A^4, ... up to A^length."""
    squares, columns, k = [A], B[..., None], 0
    while columns.shape[-1] < length:
        columns = torch.cat([columns, squares[k] @ columns], -1)
        k += 1
        if k == len(squares):
            squares.append(squares[-1] @ squares[-1])
    return columns[..., :length], squares


def power(squares: list[Tensor], exponent: int | torch.SymInt) -> Tensor:
    """A^exponent from A, A^2, A^4, ..., exponent at least 1."""
    found = None
    for k in range(len(squares)):
        if exponent // (1 << k) % 2:
            found = squares[k] if found is None else found @ squares[k]
    assert found is not None
    return found


def tables(
    A: Tensor, B: Tensor, C: Tensor, skip: Tensor | None, length: int | torch.SymInt
) -> tuple[Tables, list[Tensor]]:
    """Tables of a chunk, in float64, and the powers A^(2^k) that they took."""
    A, B, C = A.double(), B.double(), C.double()
    columns, squares = krylov(A, B, length)
    rows = (C @ A).transpose(1, 2)[..., None]  # d n m 1
    k = 0
    while rows.shape[-1] < length:
        further = (squares[k].transpose(1, 2) @ rows.flatten(2)).view_as(rows)
        rows, k = torch.cat([rows, further], -1), k + 1
    kernel = C @ columns
    if skip is not None:
        kernel = torch.cat([kernel[..., :1] + skip[..., None].double(), kernel[..., 1:]], -1)
    leave = rows[..., :length].transpose(1, 2)
    return Tables(columns.flip(-1).transpose(1, 2), leave, kernel, power(squares, length)), squares


def _scan(A: Tensor, x: Tensor, keep: Tensor | None) -> Tensor:
    """h_c = keep_c A h_{c-1} + x_c from zero along axis 2 of x (d, b, c, n), in log2(c) halvings.

    ``keep`` (b, c, 1) is 0 where a chunk holds a reset and 1 elsewhere; None where none does. A is float64.
    """
    count = x.shape[2]
    if count == 1:
        return x
    pairs = count // 2
    x_even, x_odd = x[:, :, : 2 * pairs : 2], x[:, :, 1::2]
    if keep is None:
        both, keep_odd, keep_later = None, None, None
    else:
        keep_odd, keep_later = keep[:, 1::2], keep[:, 2::2]
        both = keep_odd * keep[:, : 2 * pairs : 2]
    odd = _scan(A @ A, _carry(A, x_even, keep_odd) + x_odd, both)
    later = _carry(A, odd[:, :, : (count - 1) // 2], keep_later) + x[:, :, 2::2]
    even = torch.cat([x[:, :, :1], later], 2)
    joined = torch.stack([even[:, :, :pairs], odd], 3).flatten(2, 3)
    return joined if count == 2 * pairs else torch.cat([joined, even[:, :, pairs:]], 2)


def _carry(A: Tensor, x: Tensor, keep: Tensor | None) -> Tensor:
    """A x for each of the states x (d, b, c, n), dropped where ``keep`` says so."""
    moved = torch.bmm(x.flatten(1, 2), A.transpose(1, 2).to(x.dtype)).view_as(x)
    return moved if keep is None else torch.where(keep > 0, moved, 0.0)


def _chunks(u: Tensor, table: Tables, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
    """Outputs (b, t, d, m) and last state of u (b, t, d), t a multiple of L; state (d, b, 1, n)."""
    b, t, d = u.shape
    m, n, length = table.leave.shape[1:]
    count = t // length
    enter, leave, kernel = (x.to(u.dtype) for x in table[:3])
    rows = u.reshape(b * count, length, d)
    segment, keep, into = None, None, rows
    if resets is not None:
        # Pieces of a chunk, counted from the state that enters it: piece 0 sees it, the last one leaves.
        segment = resets.reshape(b * count, length).cumsum(1)
        into = torch.where((segment == segment[:, -1:])[..., None], rows, 0.0)
        keep = (segment[:, -1] == 0).to(u.dtype).view(b, count, 1)
    into = into.permute(2, 0, 1)  # d (b c) L
    ends = torch.bmm(into, enter).view(d, b, count, n)
    first = ends[:, :, :1] + _carry(table.over, state, None if keep is None else keep[:, :1])
    after = _scan(table.over, torch.cat([first, ends[:, :, 1:]], 2), keep)
    before = torch.cat([state, after[:, :, :-1]], 2).reshape(d, b * count, n)
    carried = torch.bmm(before, leave.transpose(1, 2).reshape(d, n, m * length))
    if segment is None:
        lags = toeplitz(kernel.flatten(0, 1)).view(d, m, length, length).transpose(1, 2)
        y = torch.baddbmm(carried, into, lags.reshape(d, length, m * length))
        y = y.view(d, b * count, m, length).permute(1, 3, 0, 2)
    else:
        carried = carried.view(d, b * count, m, length).permute(1, 3, 0, 2)
        y = torch.where((segment == 0)[..., None, None], carried, 0.0)
        y = y + kernel[..., 0] * rows[..., None]
        for lag in range(1, length):
            same = (segment[:, lag:] == segment[:, :-lag])[..., None]
            late = torch.where(same, rows[:, :-lag], 0.0)[..., None] * kernel[..., lag]
            y = y + torch.cat([torch.zeros_like(y[:, :lag]), late], 1)
    return y.reshape(b, t, d, m), after[:, :, -1:]


def dense_lti(
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    initial_state: Tensor | None,
    resets: Tensor | None,
    skip: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs and last state; arguments as at the door."""
    dtype = u.dtype
    wide = torch.promote_types(dtype, torch.float32)
    b, t, d = u.shape
    u = u.to(wide)
    with torch.autocast(u.device.type, enabled=False):
        length = min(t, CHUNK if resets is None else RESET_CHUNK)
        table, squares = tables(A, B, C, skip, length)
        if initial_state is None:
            state = u.new_zeros(d, b, 1, A.shape[-1])
        else:
            state = initial_state.to(wide).transpose(0, 1)[:, :, None]
        whole = t - t % length
        y, state = _chunks(u[:, :whole], table, state, None if resets is None else resets[:, :whole])
        if whole < t:
            rest = t - whole
            short = Tables(
                table.enter[:, length - rest :],
                table.leave[..., :rest],
                table.kernel[..., :rest],
                power(squares, rest),
            )
            tail, state = _chunks(u[:, whole:], short, state, None if resets is None else resets[:, whole:])
            y = torch.cat([y, tail], 1)
    return y.to(dtype), state[:, :, 0].transpose(0, 1).contiguous()
