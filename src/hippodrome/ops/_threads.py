"""The thread pool on which the Numba kernels run their ranges of tiles.

Numba's own ``parallel=True`` is not used: its OpenMP layer kills forked loader workers and its work queue
aborts the process when two Python threads call at once. Kernels here release the interpreter lock and take a
range ``[first, last)`` of independent tiles; this module hands ranges to a pool of our own, one per process.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch

PIECES = 8
"""Ranges of tiles for each thread, where threads share them as they go."""


@lru_cache(maxsize=4)
def _pool(process_id: int, workers: int) -> ThreadPoolExecutor:
    # Keyed by process id: a pool inherited through fork has no threads behind it.
    return ThreadPoolExecutor(max_workers=workers, thread_name_prefix=f"hippodrome-{process_id}")


def run_tiles(kernel: Callable[..., None], tiles: int, *arguments: object) -> None:
    """Call ``kernel(first, last, *arguments)`` over ``range(tiles)``, split over ``torch.get_num_threads()``.

    The kernel must be compiled with ``nogil=True`` and its tiles must be independent: each tile's result is
    the same whatever the split, so results do not depend on the number of threads.
    """
    threads = min(torch.get_num_threads(), tiles)
    if threads <= 1:
        kernel(0, tiles, *arguments)
        return
    bounds = [tiles * i // threads for i in range(threads + 1)]
    pool = _pool(os.getpid(), threads - 1)
    # The caller's own thread works too: one hand-over less, and no deadlock when calls nest.
    pending = [pool.submit(kernel, bounds[i], bounds[i + 1], *arguments) for i in range(1, threads)]
    kernel(bounds[0], bounds[1], *arguments)
    for future in pending:
        future.result()


def share_tiles(kernel: Callable[..., None], tiles: int, *arguments: object) -> None:
    """Call ``kernel(first, last, *arguments)`` over ``range(tiles)`` in short ranges, whoever is free next.

    As ``run_tiles``, for kernels whose tiles are long and gain nothing from each other's company: a thread
    that starts late, since its core is still busy with something else, then holds nobody up.
    """
    threads = min(torch.get_num_threads(), tiles)
    if threads <= 1:
        kernel(0, tiles, *arguments)
        return
    count = min(tiles, PIECES * threads)
    left = iter([(tiles * i // count, tiles * (i + 1) // count) for i in range(count)])

    def work() -> None:
        # A list's iterator hands out each item once: the interpreter lock is held while it does.
        for first, last in left:
            kernel(first, last, *arguments)

    pool = _pool(os.getpid(), threads - 1)
    pending = [pool.submit(work) for _ in range(threads - 1)]
    work()
    for future in pending:
        # What has not begun by now has nothing left to do.
        if not future.cancel():
            future.result()
