"""The threads on which the Numba kernels run their ranges of tiles: PyTorch's own where they can be had.

Kernels here release the interpreter lock and take a range ``[first, last)`` of independent tiles; this module
hands ranges to threads. Those of PyTorch's products go on spinning for some milliseconds after each product,
which is longer than most kernels take: other threads would have to share their cores with them. So ranges run
on the same team, through the C interface of the OpenMP library under PyTorch.

Where there is none, and in a forked process, in which that team hangs, a pool of our own takes its place, one
per process. Numba's ``parallel=True`` would do neither: its OpenMP layer kills forked loader workers and its
work queue aborts the process when two Python threads call at once.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

PIECES = 8
"""Ranges of tiles for each thread, where threads share them as they go."""
ALONE = 2**22
"""Bytes below which one thread reads alone."""

Ranges = Iterator[tuple[int, int]]
_PROCESS = os.getpid()
_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_TEAM = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)


@runtime_checkable
class Notes(Protocol):
    """What takes down the calls of kernels; ``ops._tape`` does."""

    def note(self, kernel: Any, tiles: int, count: int, arguments: tuple[Any, ...]) -> None:
        """One call: over how many tiles, of how many bytes, and what follows the range of tiles."""


_NOTES: ContextVar[Notes | None] = ContextVar("notes", default=None)


@contextmanager
def noting(notes: Notes) -> Iterator[None]:
    """Every kernel that this thread runs from here is noted, too."""
    token = _NOTES.set(notes)
    try:
        yield
    finally:
        _NOTES.reset(token)


@lru_cache(maxsize=1)
def _library() -> Any:
    """The library that PyTorch is linked to with GNU's interface to OpenMP, or None.

    Only if it is loaded already; a name is looked up in the libraries that it is linked to as well.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not sys.platform.startswith("linux") or not torch.backends.openmp.is_available():
        return None
    try:
        found = ctypes.CDLL(str(library), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        return found if found.GOMP_parallel else None
    except (OSError, AttributeError):
        return None


@lru_cache(maxsize=1)
def _team() -> Any:
    """``GOMP_parallel(body, data, threads, flags)`` of that library, or None."""
    if _library() is None:
        return None
    team = _library().GOMP_parallel
    team.argtypes, team.restype = (_BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return team


def _address(library: Any, name: str) -> int:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0


@lru_cache(maxsize=1)
def _native_team() -> Any:
    """The same for a body that is compiled."""
    library = _library()
    return None if library is None else _TEAM(_address(library, "GOMP_parallel"))


@lru_cache(maxsize=1)
def yield_function() -> int:
    """The address of ``int f(void)`` that gives the core to another thread; 0 where there is none."""
    return 0 if sys.platform == "win32" else _address(ctypes.CDLL(None), "sched_yield")


@lru_cache(maxsize=4)
def _pool(process_id: int, workers: int) -> ThreadPoolExecutor:
    # Keyed by process id: a pool inherited through fork has no threads behind it.
    return ThreadPoolExecutor(max_workers=workers, thread_name_prefix=f"hippodrome-{process_id}")


def is_forked() -> bool:
    """Whether this process is a copy of the one that loaded the library, without that one's threads."""
    return os.getpid() != _PROCESS


def run_compiled(body: int, data: int, threads: int) -> None:
    """Call the compiled ``void body(data)`` on this many threads at once; it must bear fewer calls."""
    native = None if is_forked() else _native_team()
    if threads > 1 and native is not None:
        native(body, data, threads, 0)
    elif threads > 1:
        call = _BODY(body)
        _together(lambda: call(data), threads)
    else:
        _BODY(body)(data)


def _together(work: Callable[[], None], threads: int) -> None:
    """Call ``work()`` on this many threads at once, this one among them; it must bear fewer calls."""
    process, errors = os.getpid(), []
    team = _team() if process == _PROCESS else None

    def guarded(_: object) -> None:
        # An error may not pass through the library's frames: it waits here for the caller.
        try:
            work()
        except BaseException as error:
            errors.append(error)

    if team is not None:
        # Always the whole team: with another size its threads would be ended and made anew.
        team(_BODY(guarded), None, threads, 0)
    else:
        pending = [_pool(process, threads - 1).submit(guarded, None) for _ in range(threads - 1)]
        guarded(None)
        for future in pending:
            # What has not begun by now has nothing left to do.
            if not future.cancel():
                future.result()
    if errors:
        raise errors[0]


def _run(kernel: Callable[..., None], tiles: int, pieces: int, arguments: tuple[object, ...]) -> None:
    threads = torch.get_num_threads()
    if min(threads, tiles) <= 1:
        kernel(0, tiles, *arguments)
        return
    count = min(tiles, pieces * threads)
    left: Ranges = iter([(tiles * i // count, tiles * (i + 1) // count) for i in range(count)])

    def work() -> None:
        # A list's iterator hands out each item once: the interpreter lock is held while it does.
        for first, last in left:
            kernel(first, last, *arguments)

    _together(work, threads)


def run_tiles(kernel: Callable[..., None], tiles: int, *arguments: object) -> None:
    """Call ``kernel(first, last, *arguments)`` over ``range(tiles)``, split over ``torch.get_num_threads()``.

    The kernel must be compiled with ``nogil=True`` and its tiles must be independent: each tile's result is
    the same whatever the split, so results do not depend on the number of threads.
    """
    _note(kernel, tiles, ALONE, arguments)
    _run(kernel, tiles, 1, arguments)


def share_tiles(kernel: Callable[..., None], tiles: int, *arguments: object) -> None:
    """Call ``kernel(first, last, *arguments)`` over ``range(tiles)`` in short ranges, whoever is free next.

    As ``run_tiles``, for kernels whose tiles are long and gain nothing from each other's company: a thread
    that starts late, since its core is still busy with something else, then holds nobody up.
    """
    _note(kernel, tiles, ALONE, arguments)
    _run(kernel, tiles, PIECES, arguments)


def run_bytes(kernel: Callable[..., None], tiles: int, count: int, *arguments: object) -> None:
    """As ``run_tiles``, for kernels of one token, bound by the ``count`` bytes that they read.

    Below ``ALONE`` the calling thread has read them all before another would have woken.
    """
    _note(kernel, tiles, count, arguments)
    if count < ALONE:
        kernel(0, tiles, *arguments)
    else:
        _run(kernel, tiles, 1, arguments)


def _note(kernel: Callable[..., None], tiles: int, count: int, arguments: tuple[object, ...]) -> None:
    notes = _NOTES.get()
    if notes is not None:
        notes.note(kernel, tiles, count, arguments)


@contextmanager
def on_threads(count: int) -> Iterator[list[int]]:
    """Kernels and products called from this thread run on so many threads, each bound to a core of its own.

    Threads that stay on their cores find there what they read last. Yields the numbers of the cores, none
    where threads are not bound: under another system than Linux, in a forked process, or where there are
    fewer cores than threads. Afterwards all is as before.

    Raises:
        ValueError: fewer than one thread.
    """
    if count < 1:
        raise ValueError(f"threads are 1 or more; got {count}. Give at most the number of cores.")
    before = torch.get_num_threads()
    bound = sys.platform.startswith("linux") and not is_forked() and _team() is not None
    cores = sorted(os.sched_getaffinity(0)) if bound else []
    chosen = cores[:count] if count <= len(cores) else []
    torch.set_num_threads(count)
    try:
        if chosen:
            _bind([{core} for core in chosen])
        yield chosen
    finally:
        if chosen:
            _bind([set(cores)] * count)
        torch.set_num_threads(before)


def _bind(places: list[set[int]]) -> None:
    """Let each thread of the team run on one of these sets of cores."""
    left = iter(places)

    def bind() -> None:
        place = next(left, None)
        if place is not None:
            os.sched_setaffinity(0, place)

    _together(bind, len(places))
