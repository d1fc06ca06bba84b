"""A tape: kernel calls noted once with their arguments, and run again as one call, without Python between.

A kernel of one token works for microseconds, as long as the Python around it. The notes hold addresses, so
the tape keeps every tensor that is told to it. Calls run in the order in which they were noted, each over all
threads of the team, which meet in between.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from hippodrome.ops import _threads

SOLO = 1 << 13
"""Bytes below which one thread has a call behind it before another has come."""
PIECE = 1 << 18
"""Bytes of the pieces in which threads take a long call: ten microseconds of reading."""


class Note(NamedTuple):
    """A call of a kernel: over how many tiles, of how many bytes, and its arguments after the range."""

    kernel: Any
    tiles: int
    bytes: int
    arguments: tuple[Any, ...]


class Tape:
    """Notes of kernel calls, and of Python functions between them, in order.

    Make one, note calls (``recording`` has the kernels' callers do it), ``close`` it, then ``replay``.
    """

    def __init__(self) -> None:
        self.notes: list[Note | Callable[[], None]] = []
        self.kept: list[Any] = []
        """What must live as long as the tape: everything whose address is on it."""
        self._parts: list[Callable[[], None]] = []

    def note(self, kernel: Any, tiles: int, count: int, arguments: tuple[Any, ...]) -> None:
        """Put a call on the tape; the caller runs it or not."""
        if tiles:
            self.notes.append(Note(kernel, tiles, count, arguments))

    def call(self, function: Callable[[], None]) -> None:
        """Put a Python function on the tape, which costs a return to Python at each replay."""
        self.notes.append(function)

    def close(self) -> None:
        """Compile what the replay needs.

        Raises:
            TypeError: a kernel takes arguments that a tape cannot hold.
        """
        run: list[Note] = []
        for note in [*self.notes, None]:
            if isinstance(note, Note):
                run.append(note)
                continue
            if run:
                self._parts.append(_Program(run).run)
                run = []
            if note is not None:
                self._parts.append(note)

    def replay(self) -> None:
        """Run everything again.

        Raises:
            ArithmeticError: a kernel failed, which none does on numbers.
        """
        for part in self._parts:
            part()


class _Program:
    """Calls of kernels in a row as the compiled loop reads them."""

    def __init__(self, notes: list[Note]) -> None:
        import numpy as np

        from hippodrome.ops import _tape_kernel as kernel

        room = np.zeros((len(notes) + 2) * kernel.LINE, np.int64)
        start = -room.ctypes.data % 64 // 8
        self._lines = room[start : start + (len(notes) + 1) * kernel.LINE].reshape(-1, kernel.LINE)
        self._notes = notes
        self._packed = [kernel.pack(note.arguments) for note in notes]
        self._lines[0, : kernel.FAILED] = len(notes), _threads.yield_function()
        for line, note, packed in zip(self._lines[1:], notes, self._packed, strict=True):
            entry = kernel.entry(note.kernel, note.arguments)
            line[: kernel.PIECES] = entry, packed.ctypes.data, note.tiles
        self._threads = 0

    def run(self) -> None:
        """All calls."""
        from hippodrome.ops import _tape_kernel as kernel

        threads = torch.get_num_threads()
        if threads != self._threads:
            self._lines[1:, kernel.PIECES] = [_pieces(note, threads) for note in self._notes]
            self._threads = threads
        self._lines[0, kernel.FAILED] = 0
        self._lines[1:, kernel.TAKEN : kernel.DONE + 1] = 0
        body: Any = kernel.run.address
        _threads.run_compiled(body, self._lines.ctypes.data, threads)
        if failed := int(self._lines[0, kernel.FAILED]):
            raise ArithmeticError(f"call {failed - 1} of a tape failed")


def _pieces(note: Note, threads: int) -> int:
    """In how many pieces this many threads take the tiles of a call."""
    if note.bytes < SOLO:
        return 1
    return min(note.tiles, threads * max(1, note.bytes // (PIECE * threads)))
