"""Time and memory by the clock: one forward pass and one step against the length of the sequence."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn


class Scaling(NamedTuple):
    """Cost against length. None where a length was not measured because it would have taken too long.

    ``forward_seconds``: one forward pass of ``rows`` rows of that many tokens, in evaluation mode.
    ``forward_bytes``: the most memory that pass held at once beside the weights and its input.
    ``step_seconds``: one more token after a context of that many tokens.
    """

    lengths: tuple[int, ...]
    forward_seconds: tuple[float | None, ...]
    forward_bytes: tuple[int | None, ...]
    step_seconds: tuple[float | None, ...]
    rows: int = 1


def wait_for(device: torch.device) -> None:
    """Return once the device has done all it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(
    call: Callable[[], Any],
    device: torch.device,
    *,
    repeats: int = 5,
    at_most: float = 1.0,
    warm: bool = True,
) -> float:
    """Median wall time of ``call`` after one uncounted; stops once ``at_most`` seconds are spent."""
    if warm:
        call()
    wait_for(device)
    taken: list[float] = []
    while len(taken) < repeats and (not taken or sum(taken) < at_most):
        started = time.perf_counter()
        call()
        wait_for(device)
        taken.append(time.perf_counter() - started)
    return median(taken)


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """The most tensor memory ``call`` held at once, beyond what was held when it began.

    On a GPU the allocator's own high-water mark. On the CPU the running sum of PyTorch's allocations and
    frees as its profiler records them: exact for tensors, blind to what NumPy or a compiled kernel takes
    for itself.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return max(0, torch.cuda.max_memory_allocated(device) - before)
    return _peak_of(_allocations(call))


def _allocations(call: Callable[[], Any]) -> list[int]:
    """Every allocation (positive) and free (negative) of CPU tensors during ``call``, in order, in bytes."""
    # The profiler of torch.profiler writes to stderr on some builds; the one beneath autograd is silent.
    from torch.autograd import (
        ProfilerConfig,
        ProfilerState,
        _disable_profiler_legacy,
        _enable_profiler_legacy,
    )
    from torch.profiler import _ExperimentalConfig

    _enable_profiler_legacy(
        ProfilerConfig(ProfilerState.CPU, False, True, False, False, False, _ExperimentalConfig())
    )
    try:
        call()
    finally:
        threads = _disable_profiler_legacy()
    records = [record for thread in threads for record in thread]
    start = next(r for r in records if r.name() == "__start_profile")
    changes = [(start.cpu_elapsed_us(r), r.cpu_memory_usage()) for r in records if r.kind() == "memory_alloc"]
    return [change for _, change in sorted(changes, key=lambda c: c[0])]


def _peak_of(changes: Sequence[int]) -> int:
    held = most = 0
    for change in changes:
        held += change
        most = max(most, held)
    return most


@torch.no_grad()
def scaling(
    backbone: Any, lengths: Sequence[int], *, rows: int = 1, seconds_each: float = 2.0, repeats: int = 5
) -> Scaling:
    """Measure a backbone (a stack or a single mixer) at each length.

    Args:
        backbone: a module with ``d_model``, ``forward``, ``step`` and ``init_state``; set to evaluation
            mode meanwhile.
        lengths: increasing.
        rows: sequences at once.
        seconds_each: a length is skipped when the growth so far says that one pass would take longer than
            this.
        repeats: passes at each length, of which the median counts.
    """
    parameter = next(backbone.parameters())
    device, width = parameter.device, backbone.d_model
    training = backbone.training
    backbone.eval()
    forward: list[Any] = []
    memory: list[Any] = []
    steps: list[Any] = []
    try:
        for i, length in enumerate(lengths):
            if i and _expected(lengths[:i], forward, length) > seconds_each:
                for column in (forward, memory, steps):
                    column.append(None)
                continue
            x = torch.randn(rows, length, width, device=device, dtype=parameter.dtype)
            forward.append(seconds_of(partial(backbone, x), device, repeats=repeats, at_most=seconds_each))
            memory.append(peak_bytes(partial(backbone, x), device))
            steps.append(_step_seconds(backbone, x, device, repeats) if backbone.causal else None)
    finally:
        backbone.train(training)
    return Scaling(tuple(lengths), tuple(forward), tuple(memory), tuple(steps), rows)


def _expected(lengths: Sequence[int], seconds: Sequence[float | None], length: int) -> float:
    """The time to expect at ``length``: between linear and quadratic growth, as the last two grew."""
    known = [(t, s) for t, s in zip(lengths, seconds, strict=True) if s is not None]
    if len(known) < len(seconds):  # one was skipped already: longer ones are too
        return float("inf")
    last_length, last = known[-1]
    ratio = length / last_length
    if len(known) == 1:
        return last * ratio
    before_length, before = known[-2]
    power = math.log(last / before) / math.log(last_length / before_length)
    return last * ratio ** min(2.0, max(1.0, power))


def _step_seconds(backbone: Any, x: torch.Tensor, device: torch.device, repeats: int) -> float:
    state = backbone.init_state(x.shape[0], x.shape[1] + 1)
    _, state = backbone(x, state)
    token = x[:, -1]
    return seconds_of(lambda: backbone.step(token, state), device, repeats=max(repeats, 9), at_most=0.2)


def faster_from(mine: Scaling, other: Scaling) -> int | None:
    """The first length from which on ``mine`` is faster in a forward pass at every length both measured.

    A length at which only ``other`` was too slow to be measured counts as won. None when the longest is lost.
    """
    theirs = dict(zip(other.lengths, other.forward_seconds, strict=True))
    start = None
    for length, seconds in zip(mine.lengths, mine.forward_seconds, strict=True):
        rival = theirs.get(length)
        if seconds is None:
            start = None if rival is not None else start
        elif rival is None or seconds < rival:
            start = length if start is None else start
        else:
            start = None
    return start


def training_step_bytes(model: nn.Module, batch: Any) -> int:
    """The most memory the loss and its gradients hold at once, beside the weights and the batch."""

    def step() -> None:
        model.loss(batch).backward()  # type: ignore[operator]

    device = next(model.parameters()).device
    try:
        return peak_bytes(step, device)
    finally:
        model.zero_grad(set_to_none=True)
