"""Choosing among the weights of one row on the CPU: what each cut keeps, and a draw by chance.

No step sorts the vocabulary. The k likeliest are found by a partition. The fewest that hold a share of the
chances are found by a histogram: what is surely kept and what is surely dropped is told by the bucket, and
only the bucket in which the share is reached is put in order.
"""

import numpy as np

_BLOCK = 256
"""Weights that are summed together before a draw looks inside."""

_FEW = 4096
"""So many weights or fewer are worked through directly."""

_KEPT_BITS = 6
"""Bits of the mantissa that tell the buckets of the histogram apart: 64 of them for each power of two."""


def likeliest(x: np.ndarray, k: int) -> np.ndarray:
    """Places of the k largest numbers in the order of their places, all of those that equal the last one."""
    if k >= len(x):
        return np.arange(len(x))
    return np.flatnonzero(x >= np.partition(x, len(x) - k)[len(x) - k])


def ranked(x: np.ndarray, k: int) -> np.ndarray:
    """Places of the k largest numbers, the largest first; of equal ones the first place first."""
    places = likeliest(x, k)
    return places[np.argsort(-x[places], kind="stable")[:k]]


def nucleus(weights: np.ndarray, share: float) -> np.ndarray:
    """Which weights are the fewest that add up to this share of all; of equal ones the first place first.

    Args:
        weights: none negative, the largest of them 1.
        share: above 0 and below 1.
    """
    target = share * float(weights.sum())
    if len(weights) <= _FEW:
        kept = np.zeros(len(weights), np.bool_)
        kept[_first(weights, target)] = True
        return kept
    # Positive numbers are in the order of their bits, so the upper bits are buckets.
    whole, mantissa = (np.int32, 23) if weights.dtype == np.float32 else (np.int64, 52)
    numbers: np.ndarray = weights.view(whole)
    bits = numbers >> (mantissa - _KEPT_BITS)
    bucket = bits.max() - bits
    held = np.bincount(bucket, weights=weights).cumsum()
    edge = min(int(np.searchsorted(held, target)), len(held) - 1)
    kept = bucket < edge
    at_edge = np.flatnonzero(bucket == edge)
    before = float(held[edge - 1]) if edge else 0.0
    kept[at_edge[_first(weights[at_edge], target - before)]] = True
    return kept


def draw(weights: np.ndarray, at: float) -> int:
    """The place that holds the share ``at`` of the sum of all weights, from 0 to below 1."""
    if len(weights) <= _FEW:
        return _place(weights, at)
    starts = np.arange(0, len(weights), _BLOCK)
    held = np.add.reduceat(weights, starts).cumsum(dtype=np.float64)
    target = min(at * held[-1], np.nextafter(held[-1], 0.0))
    block = int(np.searchsorted(held, target, side="right"))
    before = float(held[block - 1]) if block else 0.0
    inside = weights[starts[block] : starts[block] + _BLOCK]
    return int(starts[block]) + _place(inside, (target - before) / (float(held[block]) - before))


def _place(weights: np.ndarray, at: float) -> int:
    held = weights.cumsum(dtype=np.float64)
    target = min(at * held[-1], np.nextafter(held[-1], 0.0))
    return int(np.searchsorted(held, target, side="right"))


def _first(weights: np.ndarray, target: float) -> np.ndarray:
    """Places of the fewest weights that reach a sum, at least one, the largest first."""
    order = np.argsort(-weights, kind="stable")
    held = weights[order].cumsum(dtype=np.float64)
    return order[: int(np.searchsorted(held, target)) + 1]
