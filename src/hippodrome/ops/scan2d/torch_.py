"""Scan over a grid in PyTorch: a linear scan for each line of the shorter axis, or one step a diagonal.

Given h2 of a variate, its h1 is a linear scan along time; the h2 of the next variate then follows cell by
cell. So a grid takes as many linear scans as it has variates, one after the other (``rows``); or, since the
two states change places with the two axes, as many as it has times (``columns``). Cells of one diagonal do
not depend on each other at all, which takes t + v - 1 steps of plain arithmetic (``wavefront``).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.ops.linear_scan import linear_scan

NAME = "torch"


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: PyTorch runs everywhere."""
    return None


def rows(a: Tensor, u: Tensor) -> Tensor:
    """All states from borders of zeros, one variate after the other: v scans along time."""
    # Taken apart once: each slice by itself would have a gradient of the size of the whole.
    parts = [[line.unbind(2) for line in x.unbind(3)] for x in (a, u)]
    lines: list[tuple[Tensor, Tensor]] = []
    for j in range(u.shape[2]):
        (a1, a2, a3, a4), (u1, u2) = ([line[j] for line in kind] for kind in parts)
        h2 = u2 if j == 0 else torch.addcmul(torch.addcmul(u2, a3, lines[-1][0]), a4, lines[-1][1])
        h1, _ = linear_scan(a1, torch.addcmul(u1, a2, F.pad(h2[:, :-1], (0, 0, 1, 0))))
        lines.append((h1, h2))
    return torch.stack([torch.stack(line, 2) for line in lines], 2)


def columns(a: Tensor, u: Tensor) -> Tensor:
    """All states from borders of zeros, one time after the other: t scans along the variates.

    With both axes and both states exchanged it is ``rows``; the order of a is then reversed.
    """
    return rows(a.transpose(1, 2).flip(3), u.transpose(1, 2).flip(3)).transpose(1, 2).flip(3)


def _skewed(x: Tensor) -> Tensor:
    """(b, t, v, ...) with variate j moved j steps later, (b, t + v - 1, v, ...), zeros elsewhere."""
    v = x.shape[2]
    moved = [F.pad(line, (0, 0, 0, 0, j, v - 1 - j)) for j, line in enumerate(x.unbind(2))]
    return torch.stack(moved, 2)


def wavefront(a: Tensor, u: Tensor) -> Tensor:
    """All states from borders of zeros, one diagonal after the other: t + v - 1 steps."""
    t = u.shape[1]
    a, u = _skewed(a), _skewed(u)
    h = torch.zeros_like(u[:, 0])
    diagonals = []
    for now, inputs in zip(a.unflatten(3, (2, 2)).unbind(1), u.unbind(1), strict=True):
        # One step earlier on its own row for h1, on the row before for h2.
        read = torch.stack([h, F.pad(h[:, :-1], (0, 0, 0, 0, 1, 0))], 2)
        h = (now * read).sum(3) + inputs
        diagonals.append(h)
    lines = torch.stack(diagonals, 1).unbind(2)
    return torch.stack([line[:, j : j + t] for j, line in enumerate(lines)], 2)


def scan2d(
    a: Tensor, u: Tensor, initial_state: Tensor | None, edge: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States and those of the last time; arguments as at the door."""
    dtype = u.dtype
    wide = torch.promote_types(torch.promote_types(dtype, a.dtype), torch.float32)
    a, u = a.to(wide), u.to(wide)
    b, t, v, _, d = u.shape
    if a.dim() == 2:
        a = a.expand(b, t, v, 4, d)
    if resets is not None:
        time = torch.tensor([True, True, False, False], device=a.device)[:, None]
        a = torch.where(resets[:, :, None, None, None] & time, 0.0, a)
    # What enters over the borders joins the inputs of the first cells.
    if initial_state is not None:
        entering = (a[:, 0, :, :2] * initial_state.to(wide)).sum(2)
        first = torch.stack([entering, torch.zeros_like(entering)], 2)
        u = torch.cat([u[:, :1] + first[:, None], u[:, 1:]], 1)
    if edge is not None:
        entering = (a[:, :, 0, 2:] * edge.to(wide)).sum(2)
        first = torch.stack([torch.zeros_like(entering), entering], 2)
        u = torch.cat([u[:, :, :1] + first[:, :, None], u[:, :, 1:]], 2)
    # A line takes about three times as long as a diagonal: near the square the diagonals win.
    form = wavefront if t + v - 1 <= 3 * min(t, v) else rows if v <= t else columns
    h = form(a, u)
    return h.to(dtype), h[:, -1].to(torch.promote_types(dtype, torch.float32)).clone()
