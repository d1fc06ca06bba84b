"""The kernels' thread pool: calls from several Python threads at once, and from forked workers."""

import multiprocessing
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from hippodrome.ops import _threads
from hippodrome.ops._threads import run_tiles, share_tiles
from hippodrome.ops.linear_scan import linear_scan
from hippodrome.ops.linear_scan.examples import inputs


@pytest.fixture(autouse=True)
def _two_threads():
    """A pool with a thread of its own, whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def results(seed):
    # Small enough for PyTorch to stay off its own OpenMP threads, which hang in a forked worker.
    arguments = inputs(b=3, t=20, d=300, dtype=torch.float32, seed=seed)
    leaves = [x.requires_grad_() if x.is_floating_point() else x for x in arguments]
    h, last = linear_scan(*leaves, backend="numba")
    gradients = torch.autograd.grad(h.square().sum() + last.sum(), leaves[:3])
    return [x.detach() for x in (h, last, *gradients)]


def test_python_threads_calling_at_once_get_what_each_gets_alone():
    alone = [results(seed) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(results, range(24)))
    for actual, expected in zip(together, alone, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(actual, expected, strict=True))


class Scanned(Dataset):
    """Items whose making calls the kernels on two threads inside the worker."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        torch.set_num_threads(2)
        return results(i)[0]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_a_forked_loader_worker_calls_the_kernel_after_its_parent():
    expected = [results(i)[0] for i in range(4)]
    loader = DataLoader(Scanned(), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=30)
    for actual, value in zip(loader, expected, strict=True):
        assert torch.equal(actual, value)


@pytest.fixture(params=["team", "pool"])
def threads_of(request, monkeypatch):
    """PyTorch's team, and the pool that a forked process falls back on."""
    if request.param == "pool":
        monkeypatch.setattr(_threads, "_PROCESS", -1)
    return request.param


@pytest.mark.parametrize("run", [run_tiles, share_tiles])
@pytest.mark.parametrize("tiles", [0, 1, 2, 7, 100])
def test_every_tile_runs_once(threads_of, run, tiles):
    seen = []
    run(lambda first, last, out: out.extend(range(first, last)), tiles, seen)
    assert sorted(seen) == list(range(tiles))


def test_two_threads_work_at_once(threads_of):
    both = threading.Barrier(2, timeout=30)
    run_tiles(lambda first, last: both.wait(), 2)


@pytest.mark.skipif(
    not (sys.platform.startswith("linux") and torch.backends.openmp.is_available()),
    reason="PyTorch here runs on no OpenMP library with GNU's interface",
)
def test_pytorchs_own_team_is_found():
    assert _threads._team() is not None


def test_an_error_in_a_tile_reaches_the_caller(threads_of):
    def kernel(first, last):
        if last == 4:
            raise ValueError("the last range fails")

    with pytest.raises(ValueError, match="the last range fails"):
        run_tiles(kernel, 4)


def places(count):
    """The cores that each thread of the team may run on."""
    seen = []
    _threads._together(lambda: seen.append(os.sched_getaffinity(0)), count)
    return sorted(seen, key=min)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system binds no threads")
def test_threads_are_bound_to_cores_of_their_own_and_let_go():
    cores, before = os.sched_getaffinity(0), torch.get_num_threads()
    for count in {1, min(2, len(cores))}:
        with _threads.on_threads(count) as chosen:
            assert torch.get_num_threads() == count
            assert places(count) == [{core} for core in chosen]
        assert places(count) == [cores] * count
    with _threads.on_threads(len(cores) + 1) as chosen:
        assert chosen == []
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="threads are 1 or more"), _threads.on_threads(0):
        pass
