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
"""Bytes below which one thread has a call behind it before all would have met."""


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
        self._parts: list[Any] = []

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
                self._parts.append(_program(run, self.kept))
                run = []
            if note is not None:
                self._parts.append(note)

    def replay(self) -> None:
        """Run everything again.

        Raises:
            ArithmeticError: a kernel failed, which none does on numbers.
        """
        for part in self._parts:
            if callable(part):
                part()
            else:
                _play(part)


def _program(notes: list[Note], kept: list[Any]) -> Any:
    """The calls as the compiled loop reads them."""
    import numpy as np

    from hippodrome.ops import _tape_kernel as kernel

    words = np.zeros(kernel.HEAD + kernel.CALL * len(notes), np.int64)
    words[kernel.CALLS] = len(notes)
    for i, note in enumerate(notes):
        packed = kernel.pack(note.arguments)
        kept += [packed, note.arguments]
        alone = note.bytes < SOLO or note.tiles == 1
        follower = notes[i + 1] if i + 1 < len(notes) else None
        # One thread's calls in a row need no meeting between them, and the end of the team is one.
        meet = follower is not None and not (alone and (follower.bytes < SOLO or follower.tiles == 1))
        entry = kernel.entry(note.kernel, note.arguments)
        at = kernel.HEAD + kernel.CALL * i
        words[at : at + kernel.CALL] = (entry, packed.ctypes.data, note.tiles, alone, meet)
    return words


def _play(words: Any) -> None:
    from hippodrome.ops import _tape_kernel as kernel

    threads = torch.get_num_threads()
    words[kernel.THREADS] = threads
    words[kernel.RANK], words[kernel.SIZE] = _threads.team_functions()
    words[kernel.YIELD] = _threads.yield_function()
    words[kernel.FAILED] = words[kernel.TICKET] = words[kernel.ARRIVED] = 0
    _threads.run_compiled(int(kernel.run.address), words.ctypes.data, threads)
    if words[kernel.FAILED]:
        raise ArithmeticError(f"call {int(words[kernel.FAILED]) - 1} of a tape failed")
