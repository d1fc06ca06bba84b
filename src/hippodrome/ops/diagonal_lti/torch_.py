"""Diagonal time-invariant system in plain PyTorch: batched real matrix products over chunks of time.

With a chunk's inputs as a row, (d, b * chunks, L): its own outputs are a product with the Toeplitz matrix of
the kernel's first L values, the state it ends in a product with V = a^(L-1-j), what the state that enters
it adds to its outputs a product with W = w a^(i+1). Only the states at the ends of chunks run through a scan.
Complex numbers are pairs of real columns throughout: this compiles, and differentiates any number of times.
"""

import torch
from torch import Tensor

from hippodrome.ops.vandermonde.torch_ import powers

NAME = "torch"

CHUNK = 64
RESET_CHUNK = 16  # a chunk that may hold resets pays one pass over its inputs for every lag


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def tables(
    log_a: Tensor, w: Tensor, skip: Tensor | None, length: int | torch.SymInt, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a chunk of L steps needs: V (d, L, 2n), W (d, 2n, L), kernel (d, L), factor over it (d, n, 2).

    Powers are taken in float64, since an angle times j loses its phase in float32. Row j of V takes input j
    to the state after the chunk's last step; column i of W takes the state before the chunk to output i.
    """
    # PyTorch's stubs know no symbolic length here; arange itself takes one.
    steps = torch.arange(length + 1, device=log_a.device, dtype=torch.float64)  # type: ignore[arg-type]
    re, im = powers(log_a, steps)  # d n L+1
    w_re, w_im = w[..., 0, None].double(), w[..., 1, None].double()
    # Re(w a^j h) = out_re h_re + out_im h_im
    out_re, out_im = w_re * re - w_im * im, -(w_re * im + w_im * re)
    kernel = out_re[..., :length].sum(1)
    if skip is not None:
        kernel = torch.cat([kernel[:, :1] + skip[:, None].double(), kernel[:, 1:]], 1)
    enter = torch.cat([re, im], 1)[..., :length].flip(-1).transpose(1, 2)
    leave = torch.cat([out_re, out_im], 1)[..., 1:]
    over = torch.stack([re[..., -1], im[..., -1]], -1)
    return enter.to(dtype), leave.to(dtype), kernel.to(dtype), over.to(dtype)


def toeplitz(kernel: Tensor) -> Tensor:
    """(d, L, L) with [j, i] = kernel[i - j] where i >= j, else 0."""
    length = kernel.shape[1]
    steps = torch.arange(length, device=kernel.device)
    lag = steps[None, :] - steps[:, None]
    return torch.where(lag >= 0, kernel[:, lag.clamp_min(0)], 0.0)


def _times(a: Tensor, h: Tensor) -> Tensor:
    """Complex product of pairs, both (..., 2)."""
    a_re, a_im = a.unbind(-1)
    h_re, h_im = h.unbind(-1)
    return torch.stack([a_re * h_re - a_im * h_im, a_re * h_im + a_im * h_re], -1)


def _scan(a: Tensor, x: Tensor) -> Tensor:
    """h_c = a h_{c-1} + x_c from zero along axis 2 of x (d, b, c, n, 2), in log2(c) halvings.

    ``a`` is (d, 1, 1, n, 2), the same for every chunk, or (d, b, c, n, 2).
    """
    count = x.shape[2]
    if count == 1:
        return x
    pairs = count // 2
    fixed = a.shape[2] == 1
    a_even, a_odd, a_later = (a, a, a) if fixed else (a[:, :, : 2 * pairs : 2], a[:, :, 1::2], a[:, :, 2::2])
    x_even, x_odd = x[:, :, : 2 * pairs : 2], x[:, :, 1::2]
    odd = _scan(_times(a_odd, a_even), _times(a_odd, x_even) + x_odd)
    later = _times(a_later, odd[:, :, : (count - 1) // 2]) + x[:, :, 2::2]
    even = torch.cat([x[:, :, :1], later], 2)
    joined = torch.stack([even[:, :, :pairs], odd], 3).flatten(2, 3)
    return joined if count == 2 * pairs else torch.cat([joined, even[:, :, pairs:]], 2)


def _chunks(
    u: Tensor,
    enter: Tensor,
    leave: Tensor,
    kernel: Tensor,
    over: Tensor,
    state: Tensor,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs and last state of u (b, t, d), t a multiple of the tables' length; state (d, b, 1, n, 2)."""
    b, t, d = u.shape
    length, n = kernel.shape[1], over.shape[1]
    count = t // length
    factor = over[:, None, None]
    rows = u.reshape(b * count, length, d)
    segment = None
    if resets is not None:
        # Pieces of a chunk, counted from the state that enters it: piece 0 sees it, the last one leaves.
        segment = resets.reshape(b * count, length).cumsum(1)
        into = torch.where((segment == segment[:, -1:])[..., None], rows, 0.0)
        crossed = (segment[:, -1] > 0).view(1, b, count, 1, 1)
        factor = torch.where(crossed, 0.0, factor)
    else:
        into = rows
    into = into.permute(2, 0, 1)  # d (b c) L
    ends = torch.bmm(into, enter).view(d, b, count, 2, n).transpose(-1, -2)
    first = ends[:, :, :1] + _times(factor[:, :, :1], state)
    after = _scan(factor, torch.cat([first, ends[:, :, 1:]], 2))
    before = torch.cat([state, after[:, :, :-1]], 2).transpose(-1, -2).reshape(d, b * count, 2 * n)
    carried = torch.bmm(before, leave)
    if segment is None:
        y = torch.baddbmm(carried, into, toeplitz(kernel)).permute(1, 2, 0)
    else:
        y = torch.where((segment == 0)[..., None], carried.permute(1, 2, 0), 0.0) + kernel[:, 0] * rows
        for lag in range(1, length):
            same = (segment[:, lag:] == segment[:, :-lag])[..., None]
            late = torch.where(same, rows[:, :-lag], 0.0) * kernel[:, lag]
            y = y + torch.cat([torch.zeros_like(rows[:, :lag]), late], 1)
    return y.reshape(b, t, d), after[:, :, -1:]


def diagonal_lti(
    u: Tensor,
    log_a: Tensor,
    w: Tensor,
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
        enter, leave, kernel, over = tables(log_a, w, skip, length, wide)
        if initial_state is None:
            state = u.new_zeros(d, b, 1, log_a.shape[1], 2)
        else:
            state = initial_state.to(wide).transpose(0, 1)[:, :, None]
        whole = t - t % length
        y, state = _chunks(u[:, :whole], enter, leave, kernel, over, state, _part(resets, 0, whole))
        if whole < t:
            rest = t - whole
            over = torch.stack(powers_at(log_a, rest), -1).to(wide)
            short = enter[:, length - rest :], leave[..., :rest], kernel[:, :rest], over
            tail, state = _chunks(u[:, whole:], *short, state, _part(resets, whole, t))
            y = torch.cat([y, tail], 1)
    return y.to(dtype), state[:, :, 0].transpose(0, 1).contiguous()


def powers_at(log_a: Tensor, exponent: int | torch.SymInt) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of exp(log_a * exponent), (d, n), in float64."""
    re, im = powers(log_a, torch.tensor([float(exponent)], device=log_a.device, dtype=torch.float64))
    return re[..., 0], im[..., 0]


def _part(resets: Tensor | None, start: int | torch.SymInt, stop: int | torch.SymInt) -> Tensor | None:
    return None if resets is None else resets[:, start:stop]
