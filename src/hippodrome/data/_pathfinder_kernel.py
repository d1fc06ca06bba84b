"""Numba kernels for Pathfinder: where the dashes of a scene lie, and the canvas they are drawn on.

A contour's end is an array of four: y and x of its latest pivot, its direction, and the number of its latest
dash, -1 before the first.
``rules`` is a NamedTuple of numbers (``hippodrome.data.pathfinder.Rules``); places are (y, x) in pixels.
"""

import math

import numpy as np
from numba import njit

TRIES = 8
"""Turns that a contour tries for its next dash before it is given up."""


@njit(nogil=True, cache=True)
def uniform(random):
    """The next number in [0, 1); ``random`` holds the state of SplitMix64, one 64-bit number."""
    random[0] += np.uint64(0x9E3779B97F4A7C15)
    z = random[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) * 2.0**-53


@njit(nogil=True, cache=True)
def scene(rules, seed, dashes, owner):
    """Fill ``dashes`` (k, 2, 2) and ``owner`` (k,) from the seed; how many there are."""
    random = np.array([seed], dtype=np.uint64)
    count = 0
    while count < 2 * rules.contour or not _markers_apart(rules, dashes, count):
        count = _targets(rules, random, dashes, owner)
    short, span = rules.contour // 3, rules.canvas - 2 * rules.padding
    for which in range(rules.distracting // short):
        for _ in range(5):
            before = count
            end = np.empty(4)
            y, x = rules.padding + uniform(random) * span, rules.padding + uniform(random) * span
            _start(rules, random, end, y, x)
            for _ in range(short):
                if not _grow(rules, random, end, 2 + which, dashes, owner, count):
                    break
                count += 1
            if count == before + short:
                break
            count = before
    return count


@njit(nogil=True, cache=True)
def _targets(rules, random, dashes, owner):
    """The two contours that may be marked, in turns, from starts so far apart; how many dashes they got."""
    inner = 2 * rules.seeds
    span = rules.canvas - 2 * inner
    y, x = inner + uniform(random) * span, inner + uniform(random) * span
    way = 2 * math.pi * uniform(random)
    ends = np.empty((2, 4))
    _start(rules, random, ends[0], y, x)
    _start(rules, random, ends[1], y + rules.seeds * math.sin(way), x + rules.seeds * math.cos(way))
    count = 0
    for _ in range(rules.contour):
        for one in range(2):
            if not _grow(rules, random, ends[one], one, dashes, owner, count):
                return count
            count += 1
    return count


@njit(nogil=True, cache=True)
def _markers_apart(rules, dashes, count):
    """Whether neither contour's end is so near to a start that two markers would look like one."""
    for start in range(2):
        for end in range(count - 2, count):
            y, x = dashes[start, 0, 0] - dashes[end, 1, 0], dashes[start, 0, 1] - dashes[end, 1, 1]
            if math.hypot(y, x) < 2 * rules.radius + rules.apart:
                return False
    return True


@njit(nogil=True, cache=True)
def _start(rules, random, end, y, x):
    """A contour whose first dash begins at (y, x), in a direction drawn."""
    angle = 2 * math.pi * uniform(random)
    end[0], end[1] = y - rules.margin * math.sin(angle), x - rules.margin * math.cos(angle)
    end[2], end[3] = angle, -1


@njit(nogil=True, cache=True)
def _grow(rules, random, end, which, dashes, owner, count):
    """Lay dash ``count`` at the end of a contour, the first one straight, others turned; whether it fits."""
    first = end[3] < 0
    y, x = end[0], end[1]
    if not first:
        ahead = rules.length + 2 * rules.margin
        y, x = y + ahead * math.sin(end[2]), x + ahead * math.cos(end[2])
    far = rules.margin + rules.length
    for _ in range(1 if first else TRIES):
        angle = end[2] if first else end[2] + _turn(rules, random)
        down, right = math.sin(angle), math.cos(angle)
        dashes[count, 0, 0], dashes[count, 0, 1] = y + rules.margin * down, x + rules.margin * right
        dashes[count, 1, 0], dashes[count, 1, 1] = y + far * down, x + far * right
        owner[count] = which
        if _fits(rules, dashes, owner, count, int(end[3])):
            end[0], end[1], end[2], end[3] = y, x, angle, count
            return True
    return False


@njit(nogil=True, cache=True)
def _turn(rules, random):
    """A turn of density max(cos(min(continuity |turn|, pi / 2)), 0)^2 up to a factor, by rejection."""
    most = math.pi / 2 / rules.continuity
    while True:
        turn = most * (2 * uniform(random) - 1)
        if uniform(random) < math.cos(rules.continuity * turn) ** 2:
            return turn


@njit(nogil=True, cache=True)
def _fits(rules, dashes, owner, count, before):
    """Whether dash ``count`` is inside and keeps off all others but the one ``before`` it."""
    dash = dashes[count]
    if dash.min() < rules.padding or dash.max() > rules.canvas - rules.padding:
        return False
    for other in range(count):
        wanted = rules.apart if owner[other] != owner[count] else 2 * rules.margin + rules.thickness
        near = wanted + 2 * rules.length  # of their first ends, or the dashes cannot be too close
        y, x = dash[0, 0] - dashes[other, 0, 0], dash[0, 1] - dashes[other, 0, 1]
        if other != before and y * y + x * x < near * near and distance(dash, dashes[other]) < wanted:
            return False
    return True


@njit(nogil=True, cache=True)
def distance(a, b):
    """Between two segments (2, 2) that do not cross: the least of each end's from the other segment."""
    found = math.inf
    for one, other in ((a, b), (b, a)):
        dy, dx = other[1, 0] - other[0, 0], other[1, 1] - other[0, 1]
        for i in range(2):
            y, x = one[i, 0] - other[0, 0], one[i, 1] - other[0, 1]
            t = min(max((y * dy + x * dx) / (dy * dy + dx * dx), 0.0), 1.0)
            found = min(found, math.hypot(y - t * dy, x - t * dx))
    return found


@njit(nogil=True, cache=True)
def draw(rules, segments, markers, canvas):
    """Segments (k, 2, 2) and discs around ``markers`` (m, 2): nearly the part of each pixel they cover."""
    size = canvas.shape[0]
    for k in range(len(segments)):
        y0, x0, y1, x1 = segments[k, 0, 0], segments[k, 0, 1], segments[k, 1, 0], segments[k, 1, 1]
        length = math.hypot(y1 - y0, x1 - x0)
        down, right = (y1 - y0) / length, (x1 - x0) / length
        wide = rules.thickness + 1
        for i in range(max(int(min(y0, y1) - wide), 0), min(int(max(y0, y1) + wide) + 1, size)):
            for j in range(max(int(min(x0, x1) - wide), 0), min(int(max(x0, x1) + wide) + 1, size)):
                y, x = i + 0.5 - (y0 + y1) / 2, j + 0.5 - (x0 + x1) / 2
                along = 0.5 + length / 2 - abs(y * down + x * right)
                across = 0.5 + rules.thickness / 2 - abs(y * right - x * down)
                lit = min(max(along, 0.0), 1.0) * min(max(across, 0.0), 1.0)
                canvas[i, j] = max(canvas[i, j], lit)
    for k in range(len(markers)):
        y0, x0, wide = markers[k, 0], markers[k, 1], rules.radius + 1
        for i in range(max(int(y0 - wide), 0), min(int(y0 + wide) + 1, size)):
            for j in range(max(int(x0 - wide), 0), min(int(x0 + wide) + 1, size)):
                lit = 0.5 + rules.radius - math.hypot(i + 0.5 - y0, j + 0.5 - x0)
                canvas[i, j] = max(canvas[i, j], min(max(lit, 0.0), 1.0))
