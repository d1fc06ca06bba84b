"""Numba kernels for ListOps in bulk: trees from random numbers that are handed in, and their values."""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def grow(numbers, low, high, depth, arguments, chance, operators, out, ends):
    """Trees longer than ``low`` and shorter than ``high``, one behind the other, as ids into ``out``.

    It takes one number after the other from ``numbers`` as the plain form does, stops before a tree for which
    there may be too few left, or no room in ``out`` or ``ends``, and gives how many trees it kept and how
    many numbers it took. ``ends[i]`` is the place behind tree i.
    """
    close = 10 + operators
    lacking = [0] * (depth + 1)
    kept, taken, start = 0, 0, 0
    # A token that is no bracket takes two numbers, or three where it is an operator.
    while kept < len(ends) and taken + 3 * high <= len(numbers) and start + high <= len(out):
        place, level = start, 1
        lacking[1] = 1
        while level and place - start < high:
            if not lacking[level]:
                level -= 1
                if level:
                    out[place] = close
                    place += 1
                continue
            lacking[level] -= 1
            opens = False
            if level < depth:
                opens = numbers[taken] <= chance
                taken += 1
            if opens:
                out[place] = 10 + int(numbers[taken] * operators)
                level += 1
                lacking[level] = 2 + int(numbers[taken + 1] * (arguments - 1))
                taken += 2
            else:
                out[place] = int(numbers[taken] * 10)
                taken += 1
            place += 1
        if low < place - start < high:
            ends[kept] = place
            kept += 1
            start = place
    return kept, taken


@njit(nogil=True, cache=True)
def evaluate_all(tokens, ends, depth):
    """The value of each well-formed expression; they lie one behind the other and end before ``ends[i]``.

    Of the arguments seen so far an operator keeps how often each digit came: all four values follow from
    that, and none of them from their order.
    """
    values = np.empty(len(ends), dtype=np.int64)
    counts = np.zeros((depth + 1, 10), dtype=np.int64)
    operator = np.zeros(depth + 1, dtype=np.int64)
    start = 0
    for i in range(len(ends)):
        level, value = 0, 0
        for place in range(start, ends[i]):
            token = int(tokens[place])
            if 10 <= token < 14:
                level += 1
                operator[level] = token - 10
                counts[level] = 0
                continue
            if token < 10:
                value = token
            else:
                value = _value(operator[level], counts[level])
                level -= 1
            counts[level, value] += 1
        values[i] = value
        start = ends[i]
    return values


@njit(nogil=True, cache=True)
def _value(operator, counts):
    """Smallest, largest, median (rounded down) or sum modulo 10 of digits given by their counts."""
    total, weighted = 0, 0
    for digit in range(10):
        total += counts[digit]
        weighted += digit * counts[digit]
    if operator == 3:
        return weighted % 10
    first, last = (total - 1) // 2, total // 2  # places, in order of size, whose digits are averaged
    if operator == 0:
        first, last = 0, 0
    elif operator == 1:
        first, last = total - 1, total - 1
    low, high, seen = -1, -1, 0
    for digit in range(10):
        seen += counts[digit]
        if low < 0 and seen > first:
            low = digit
        if high < 0 and seen > last:
            high = digit
    return (low + high) // 2
