"""The convolution with a state in blocks of time, parts of the kernel, and groups of rows and channels.

Everything is a convolution without margins of the line z = [state | x | ahead] with the taps
w = [back reversed | kernel]: y_i = sum_q w_q z_{i + L - 1 - q}. A block of B outputs and a part of P taps
take a circular transform of n >= B + P - 1 points. The line is never laid out; a group's segment of it is
copied, time innermost, into one buffer that all groups share and that fits a cache.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hippodrome.ops._custom import register_second_order
from hippodrome.ops.block_conv import torch_
from hippodrome.ops.fft_conv.torch_ import fast_size

NAME = "blocks"

LONGEST = 1 << 21
"""Points of the longest transform: 16 MiB in float32 for the numbers and their spectrum."""
SHORTEST = 80
"""Points of the shortest: libraries compute several short ones at once, and round by how many there are."""
GROUP = 1 << 18
"""Points of all transforms of a group on a CPU: with their spectra they stay in its cache."""
GROUP_ELSEWHERE = 1 << 25
"""The same on other devices, where each group costs launches of kernels."""
TILE = 512
"""Steps that are turned at once, channels against time: so many cache lines stay while each is read."""
LINE = 16
"""Channels of a group at least: a cache line of float32, which a copy reads whole."""


def refusal(*tensors: Tensor | None) -> str | None:
    """Nothing is refused: the transforms are PyTorch's."""
    return None


class _Plan(NamedTuple):
    """How one call is cut."""

    outputs: int
    """Outputs of a block."""
    taps: int
    """Taps of a part of the kernel."""
    points: int
    """Points of a transform."""
    rows: int
    channels: int


def plan(b: int, t: int, d: int, length: int, block: int | None, group: int = GROUP) -> _Plan:
    """The cut with the least work whose transforms are short enough; ``length`` counts all taps."""
    if block is not None:
        outputs, taps = min(block, t), min(block, length)
    else:
        taps = min(length, LONGEST // 2)
        outputs = min(t, LONGEST // 2)
        work = _work(t, outputs, taps)
        points = 1 << max(taps - 1, 1).bit_length()
        while points < 2 * outputs:
            points *= 2
            fewer = points - taps + 1
            if 0 < fewer < outputs and _work(t, fewer, taps) < work:
                outputs, work = fewer, _work(t, fewer, taps)
    points = fast_size(max(SHORTEST, outputs + taps - 1))
    channels = min(d, max(LINE, group // (points * b)))
    rows = max(1, min(b, group // (points * channels)))
    while rows == 1 and channels > 1 and points * channels > 4 * max(group, LONGEST):
        channels = -(-channels // 2)
    return _Plan(outputs, taps, points, rows, channels)


def _work(t: int, outputs: int, taps: int) -> float:
    points = fast_size(outputs + taps - 1)
    return -(-t // outputs) * points * (math.log2(points) + 4)


def _spans(total: int, size: int) -> Iterator[tuple[int, int]]:
    """(first, last) of consecutive pieces of at most ``size``."""
    for first in range(0, total, size):
        yield first, min(first + size, total)


class _Line(NamedTuple):
    """Tensors (b, length, d) that follow each other in time; an empty one stands for zeros."""

    tensors: Sequence[Tensor]
    lengths: Sequence[int]

    def parts(self, first: int, last: int) -> Iterator[tuple[Tensor, int, int, int]]:
        """Where [first, last) lies: tensor, where in it that begins, and the range inside [first, last)."""
        start = 0
        for tensor, length in zip(self.tensors, self.lengths, strict=True):
            low, high = max(first, start), min(last, start + length)
            if low < high and tensor.numel():
                yield tensor, low - start, low - first, high - first
            start += length

    def read(self, into: Tensor, first: int, last: int, rows: slice, channels: slice) -> bool:
        """Copy [first, last) to the front of ``into`` (r, c, n), zeros elsewhere; False if all is zero."""
        filled = 0
        found = False
        for tensor, low, a, z in self.parts(first, last):
            if a > filled:
                into[..., filled:a] = 0
            for i, j in _spans(z - a, TILE):
                into[..., a + i : a + j] = tensor[rows, low + i : low + j, channels].transpose(1, 2)
            filled, found = z, True
        if found and filled < into.shape[-1]:
            into[..., filled:] = 0
        return found

    def add(self, values: Tensor, first: int, last: int, rows: slice, channels: slice) -> None:
        """Add ``values`` (r, c, n) to [first, last)."""
        for tensor, low, a, z in self.parts(first, last):
            for i, j in _spans(z - a, TILE):
                tensor[rows, low + i : low + j, channels] += values[..., a + i : a + j].transpose(1, 2)


class _Room:
    """Buffers for one group: numbers (r, c, n) and their spectrum, handed out in the sizes asked for."""

    def __init__(self, like: Tensor, plan: _Plan) -> None:
        count = plan.rows * plan.channels
        self.points, self.bins = plan.points, plan.points // 2 + 1
        wide = torch.complex128 if like.dtype == torch.float64 else torch.complex64
        self.numbers = like.new_empty(count * self.points)
        self.bin_room = like.new_empty(count * self.bins, dtype=wide)

    def line(self, rows: int, channels: int) -> Tensor:
        return self.numbers[: rows * channels * self.points].view(rows, channels, self.points)

    def transform(self, line: Tensor) -> Tensor:
        """The spectrum of a line of this room."""
        rows, channels, points = line.shape
        into = self.bin_room[: rows * channels * self.bins].view(rows, channels, self.bins)
        return torch.fft.rfft(line, points, out=into)

    def invert(self, spectrum: Tensor, into: Tensor) -> Tensor:
        """The numbers of a spectrum, in place of a line of this room."""
        return torch.fft.irfft(spectrum, self.points, out=into)


class _Call(NamedTuple):
    """One call of either direction: its cut, its line, its taps (d, L) in the type that it computes in."""

    plan: _Plan
    line: _Line
    taps: Tensor
    wide: torch.dtype

    def pieces(self) -> Iterator[tuple[slice, int, int]]:
        """Groups of channels with parts of the kernel: channels, first and last tap."""
        for c, c_end in _spans(self.taps.shape[0], self.plan.channels):
            for q, q_end in _spans(self.taps.shape[1], self.plan.taps):
                yield slice(c, c_end), q, q_end

    def blocks(self, b: int, t: int, q_end: int, count: int) -> Iterator[tuple[slice, int, int, int, int]]:
        """Rows, first and last output, and the segment of the line that reaches these from the taps."""
        shift = self.taps.shape[1] - q_end
        for r, r_end in _spans(b, self.plan.rows):
            for i, i_end in _spans(t, self.plan.outputs):
                yield slice(r, r_end), i, i_end, i + shift, i_end + shift + count - 1


def _call(x: Tensor, kernel: Tensor, state: Tensor, back: Tensor, ahead: Tensor, block: int) -> _Call:
    wide = torch.promote_types(torch.promote_types(x.dtype, kernel.dtype), torch.float32)
    taps = (torch.cat([back.flip(1), kernel], 1) if back.numel() else kernel).to(wide)
    b, t, d = x.shape
    group = GROUP if x.is_cpu else GROUP_ELSEWHERE
    cut = plan(b, t, d, taps.shape[1], block or None, group)
    line = _Line((state, x, ahead), (kernel.shape[1] - 1, t, back.shape[1]))
    return _Call(cut, line, taps, wide)


@torch.library.custom_op("hippodrome::block_conv", mutates_args=())
def _forward(x: Tensor, kernel: Tensor, state: Tensor, back: Tensor, ahead: Tensor, block: int) -> Tensor:
    call = _call(x, kernel, state, back, ahead, block)
    b, t, _ = x.shape
    parts = -(-call.taps.shape[1] // call.plan.taps)
    # Parts add up in the type that the transforms have, and are rounded once.
    y = torch.empty(x.shape, dtype=x.dtype if parts == 1 else call.wide, device=x.device)
    room = _Room(call.taps, call.plan)
    for channels, q, q_end in call.pieces():
        taps = torch.fft.rfft(call.taps[channels, q:q_end], call.plan.points)
        for rows, i, i_end, first, last in call.blocks(b, t, q_end, q_end - q):
            numbers = room.line(rows.stop - rows.start, channels.stop - channels.start)
            into = y[rows, i:i_end, channels]
            if call.line.read(numbers, first, last, rows, channels):
                room.invert(room.transform(numbers).mul_(taps), numbers)
                found = numbers[..., q_end - q - 1 : q_end - q - 1 + i_end - i].transpose(1, 2)
                for j, j_end in _spans(i_end - i, TILE):
                    if q == 0:
                        into[:, j:j_end] = found[:, j:j_end]
                    else:
                        into[:, j:j_end] += found[:, j:j_end]
            elif q == 0:
                into.zero_()
    return y.to(x.dtype)


@_forward.register_fake
def _(x, kernel, state, back, ahead, block):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape)


@torch.library.custom_op("hippodrome::block_conv_backward", mutates_args=())
def _backward(
    grad_y: Tensor,
    x: Tensor,
    kernel: Tensor,
    state: Tensor,
    back: Tensor,
    ahead: Tensor,
    block: int,
    of_line: bool,
    of_taps: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    call = _call(x, kernel, state, back, ahead, block)
    b, t, _ = x.shape
    grads = [
        torch.zeros(z.shape if of_line else (0,), dtype=call.wide, device=x.device) for z in (state, x, ahead)
    ]
    into = _Line(grads, call.line.lengths)
    grad_taps = torch.zeros(call.taps.shape if of_taps else (0, 0), dtype=call.wide, device=x.device)
    room, other = _Room(call.taps, call.plan), _Room(call.taps, call.plan)
    slopes = _Line((grad_y,), (t,))
    for channels, q, q_end in call.pieces():
        count = q_end - q
        taps = torch.fft.rfft(call.taps[channels, q:q_end], call.plan.points).conj().resolve_conj()
        total = torch.zeros_like(taps)
        for rows, i, i_end, first, last in call.blocks(b, t, q_end, count):
            shape = rows.stop - rows.start, channels.stop - channels.start
            pull = other.line(*shape)
            # The outputs of a block stand behind the count - 1 inputs that are their past alone.
            pull[..., : count - 1] = 0
            slopes.read(pull[..., count - 1 :], i, i_end, rows, channels)
            pulled = other.transform(pull)
            if of_taps:
                numbers = room.line(*shape)
                if call.line.read(numbers, first, last, rows, channels):
                    total += room.transform(numbers).conj_physical_().mul_(pulled).sum(0)
            if of_line:
                other.invert(pulled.mul_(taps), pull)
                into.add(pull, first, last, rows, channels)
        if of_taps:
            grad_taps[channels, q:q_end] = torch.fft.irfft(total, call.plan.points)[:, :count]
    later = back.shape[1]
    found = (grads[1], grad_taps[:, later:].contiguous(), grads[0], grad_taps[:, :later].flip(1), grads[2])
    narrow = (x, kernel, state, back, ahead)
    return tuple(g.to(z.dtype) for g, z in zip(found, narrow, strict=True))  # type: ignore[return-value]


@_backward.register_fake
def _(grad_y, x, kernel, state, back, ahead, block, of_line, of_taps):  # type: ignore[no-untyped-def]
    return tuple(
        z.new_empty(z.shape if wanted else (0, 0) if z.dim() == 2 else (0,))
        for z, wanted in zip(
            (x, kernel, state, back, ahead), (of_line, of_taps) * 2 + (of_line,), strict=True
        )
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.block = inputs[5]


def _gradient(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    wanted = ctx.needs_input_grad
    of_line, of_taps = wanted[0] or wanted[2] or wanted[4], wanted[1] or wanted[3]
    found = _backward(grad_y, *ctx.saved_tensors, ctx.block, of_line, of_taps)
    return (*(g if w else None for g, w in zip(found, wanted[:5], strict=True)), None)


def _form(x: Tensor, kernel: Tensor, state: Tensor, back: Tensor, ahead: Tensor) -> tuple[Tensor]:
    before, taps, after = (z if z.numel() else None for z in (state, back, ahead))
    return (torch_.block_conv(x, kernel, before, taps, after, None),)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=1, inputs=5)


def block_conv(
    x: Tensor,
    kernel: Tensor,
    initial_state: Tensor | None,
    back: Tensor | None,
    ahead: Tensor | None,
    block: int | None,
) -> Tensor:
    """Outputs; arguments as at the door."""
    state = x.new_empty(x.shape[0], 0, x.shape[2]) if initial_state is None else initial_state
    taps = kernel.new_empty(kernel.shape[0], 0) if back is None else back
    later = x.new_empty(x.shape[0], 0, x.shape[2]) if ahead is None else ahead
    y: Tensor = _forward(x, kernel, state, taps, later, block or 0)
    return y
