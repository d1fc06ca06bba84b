"""How a row is measured: contenders take turns, answers are compared first, medians and quartiles kept."""

import gc
import time
from collections.abc import Callable, Sequence
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Contender(NamedTuple):
    """One way to do the work of a row.

    ``call()`` runs the forward pass and returns outputs in the layout of ours, so that they can be compared;
    ``leaves`` are the tensors whose gradients a backward pass must fill. ``floor`` marks work that any
    contender has to do: what is measured against it is a ratio to a bound, not to a rival.
    """

    name: str
    call: Callable[[], Tensor]
    leaves: Sequence[Tensor] = ()
    floor: bool = False
    same: bool = True


class Timing(NamedTuple):
    """Seconds of one contender at one phase of a row: the middle half of ``runs`` runs."""

    row: str
    phase: str
    contender: str
    shape: dict[str, int]
    threads: int
    median: float
    low: float
    high: float
    runs: int
    floor: bool = False
    peak_bytes: int | None = None


class Pace(NamedTuple):
    """How long to measure: rounds of all contenders, until ``seconds`` are spent but at least ``least``."""

    seconds: float = 20.0
    least: int = 3
    most: int = 50


def take_turns(calls: dict[str, Callable[[], Any]], pace: Pace) -> dict[str, list[float]]:
    """Seconds of each call, one after the other in rounds, so that a slow moment of the machine hits all."""
    for call in calls.values():
        call()
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
                call()
                taken[name].append(time.perf_counter() - before)
    finally:
        gc.enable()
    return taken


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
    with torch.no_grad():
        shape = contender.call()
    gradient = torch.ones_like(shape) / shape.numel() ** 0.5

    def run() -> None:
        for leaf in contender.leaves:
            leaf.grad = None
        contender.call().backward(gradient)

    return run


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
    *,
    tolerance: float = 1e-3,
) -> list[Timing]:
    """Forward, then forward + backward, for all contenders in turn.

    Raises ValueError where two contenders do not do the same work: their answers differ by more than
    ``tolerance`` of the largest value.
    """
    for name, difference in disagreement(contenders).items():
        if not difference < tolerance:
            raise ValueError(f"{row}: {name} answers differently, by {difference:.1e} of the largest value")
    found = []
    for phase, prepare in (("forward", forward), ("forward + backward", forward_backward)):
        calls = {c.name: prepare(c) for c in contenders}
        taken = take_turns(calls, pace)
        for c in contenders:
            mid, low, high = middle(taken[c.name])
            found.append(
                Timing(row, phase, c.name, shape, threads, mid, low, high, len(taken[c.name]), c.floor)
            )
        for c in contenders:
            for leaf in c.leaves:
                leaf.grad = None
    return found


def leaves(*tensors: Tensor) -> list[Tensor]:
    """Copies of tensors that take gradients."""
    return [x.detach().clone().requires_grad_() for x in tensors]
