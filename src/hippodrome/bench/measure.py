"""How a row is measured: contenders take turns, answers are compared first, medians and quartiles kept."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles
from typing import Any

import torch

from hippodrome.analyze.timing import wait_for
from hippodrome.bench.row import Contender, Pace, Timing, Where

CPU = torch.device("cpu")
TOLERANCE = {"float32": 1e-3, "bfloat16": 6e-2}
"""How far answers may lie apart, over the largest value: rounding to bfloat16 between a rival's operations
alone takes a few hundredths."""


def take_turns(
    calls: Mapping[str, Callable[[], Any]], pace: Pace, device: torch.device = CPU
) -> dict[str, list[float]]:
    """Seconds of each call, one after the other in rounds, so that a slow moment of the machine hits all.

    On a GPU a short call is made several times before the clock is read, since reading it waits.
    """
    for call in calls.values():
        call()
    wait_for(device)
    times = {name: 1 if device.type == "cpu" else _repeats(call, device) for name, call in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    started = time.perf_counter()
    gc.collect()
    gc.disable()
    try:
        for done in range(pace.most):
            if done >= pace.least and time.perf_counter() - started > pace.seconds:
                break
            for name, call in calls.items():
                before = time.perf_counter()
                for _ in range(times[name]):
                    call()
                wait_for(device)
                taken[name].append((time.perf_counter() - before) / times[name])
    finally:
        gc.enable()
    return taken


def _repeats(call: Callable[[], Any], device: torch.device) -> int:
    before = time.perf_counter()
    call()
    wait_for(device)
    return min(100, max(1, round(0.02 / (time.perf_counter() - before))))


def middle(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return median(values), low, high


def forward(contender: Contender) -> Callable[[], Any]:
    """The forward pass as inference runs it, with nothing kept for a backward pass."""

    def run() -> None:
        with torch.no_grad():
            contender.call()

    return run


def forward_backward(contender: Contender) -> Callable[[], Any]:
    """Forward and backward with a fixed gradient, down to every leaf."""
    if contender.both is not None:
        return contender.both
    with torch.no_grad():
        shape = contender.call()
    gradient = torch.ones_like(shape) / shape.numel() ** 0.5

    def run() -> None:
        for leaf in contender.leaves:
            leaf.grad = None
        contender.call().backward(gradient)

    return run


PHASES = {"forward": forward, "forward + backward": forward_backward}


def disagreement(contenders: Sequence[Contender]) -> dict[str, float]:
    """The largest difference of each answer from the first contender's, over the largest value of that."""
    with torch.no_grad():
        ours = contenders[0].call().double()
        scale = ours.abs().max()
        return {
            c.name: float((c.call().double() - ours).abs().max() / scale)
            for c in contenders[1:]
            if c.same and not c.floor
        }


def measure_row(
    row: str,
    shape: dict[str, int],
    contenders: Sequence[Contender],
    threads: int,
    pace: Pace,
    where: Where = Where(),  # noqa: B008 - a tuple
    *,
    tolerance: float | None = None,
) -> list[Timing]:
    """Forward, then forward + backward where there are gradients to fill, for all contenders in turn.

    Raises ValueError where two contenders do not do the same work: their answers differ by more than
    ``tolerance`` of the largest value.
    """
    allowed = TOLERANCE[where.word] if tolerance is None else tolerance
    for name, difference in disagreement(contenders).items():
        if not difference < allowed:
            raise ValueError(f"{row}: {name} answers differently, by {difference:.1e} of the largest value")
    found = []
    for phase, prepare in PHASES.items():
        running = [c for c in contenders if phase == "forward" or c.leaves or c.both]
        taken = take_turns({c.name: prepare(c) for c in running}, pace, where.device) if running else {}
        for c in running:
            named = phase if c.units == 1 else f"{phase}, per token"
            times = [seconds / c.units for seconds in taken[c.name]]
            found.append(timing(row, named, c.name, shape, threads, times, floor=c.floor, dtype=where.word))
        for c in contenders:
            for leaf in c.leaves:
                leaf.grad = None
    return found


def timing(
    row: str,
    phase: str,
    contender: str,
    shape: dict[str, int],
    threads: int,
    seconds: Sequence[float],
    *,
    floor: bool = False,
    peak_bytes: int | None = None,
    dtype: str = "float32",
) -> Timing:
    """The middle of these runs as a line of a table."""
    mid, low, high = middle(seconds)
    return Timing(
        row, phase, contender, shape, threads, mid, low, high, len(seconds), floor, peak_bytes, dtype
    )
