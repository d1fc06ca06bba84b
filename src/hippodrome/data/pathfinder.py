"""Pathfinder: two dashed contours among others, and the question whether the two marked ends are of one.

Linsley, Kim, Veerabadran, Windolf, Serre 2018 (arXiv 1805.08315), as in the Long Range Arena (Tay et al.
2020, arXiv 2011.04006: 32 x 32 pixels, and Path-X, 128 x 128). Scenes are drawn here, by the published
settings for pictures of 300 x 300, and made smaller. How the arena's own small pictures were drawn is not
public: here the contours of a small picture keep two of its pixels apart, so that the answer is to be seen
in it, and are as bright as lines of one pixel's width.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from hippodrome.data._labelled import keeping, labelled_task
from hippodrome.data.base import Task, mixed

CONTOURS = (6, 9, 14)
SIZES = (16, 256)
CLASSES = ("apart", "joined")
KEPT_BYTES = 2**27
"""Drawn pictures are kept up to so many bytes."""


class Rules(NamedTuple):
    """How scenes are made, in pixels of the canvas; the defaults are published.

    ``length`` and ``thickness`` of a dash, ``margin`` half the gap to the next; ``continuity``: a contour
    turns by less than a right angle divided by it; ``seeds``: how far apart the two marked contours start;
    ``padding``: how far all keep from the edge; ``radius`` of a marker; ``contour``: dashes of a marked one;
    ``distracting``: dashes of all others together, which are a third as long; ``apart``: how far contours
    keep from each other (published: 2 margins and a thickness, which each keeps from itself), and markers.
    """

    canvas: int = 300
    length: float = 5.0
    thickness: float = 2.0
    margin: float = 3.0
    continuity: float = 1.8
    seeds: float = 27.0
    padding: float = 22.0
    radius: float = 5.0
    contour: int = 14
    distracting: int = 30
    apart: float = 8.0


class Scene(NamedTuple):
    """A picture before it is drawn, in pixels (y, x) of the canvas.

    ``dashes`` (k, 2, 2) are both ends of each; ``owner`` (k,) is the contour of each: 0 and 1 may be marked,
    the others distract; ``markers`` (2, 2).
    """

    dashes: np.ndarray
    owner: np.ndarray
    markers: np.ndarray


def open_pathfinder(*, size: int = 32, contour: int = 14, count: int = 20000, seed: int = 0) -> Task:
    """A classification task over grey pictures read pixel by pixel: size * size tokens of one channel.

    Picture i is a function of the seed and i alone and is drawn when it is asked for. Of ``count``, a tenth
    each validate and test. ``size=128`` has the length of Path-X, 16384; ``count=200000`` is published.

    Args:
        size: pixels of a side, 16 to 256.
        contour: dashes of a marked contour: 6, 9 or 14, published as easy, intermediate and hard.
        count: number of pictures.
        seed: of all of them.

    Raises:
        ValueError: a size, a contour or a count that is none of these.
    """
    rules = rules_for(size, contour)
    if count < 100:
        raise ValueError(f"pathfinder: 100 pictures at least are split; got count {count}. Ask for more.")
    labels = np.array([label(seed, i) for i in range(count)])
    held = count // 10

    def read(index: int) -> np.ndarray:
        return picture(scene(seed, index, rules), size, rules).reshape(-1, 1)

    return labelled_task(
        keeping(read, KEPT_BYTES),
        labels,
        np.split(np.arange(count), [count - 2 * held, count - held]),
        list(CLASSES),
        "pathfinder",
        "pathfinder",
        {
            "source": "generated Pathfinder",
            "seed": seed,
            "images": f"{size} x {size}, 1 colour, contours of {contour} dashes",
            "order": f"{size * size} pixels of 1",
            "levels": 256,
            "grid": [size, size],
            "known best error": 0.0,
        },
        lengths=np.full(count, size * size),
        statistics_from=256,
    )


def rules_for(size: int, contour: int) -> Rules:
    """The rules of pictures of this size. Raises ValueError for a size or a contour that there is not."""
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(
            f"pathfinder: a side has {SIZES[0]} to {SIZES[1]} pixels; got size {size}. Take 32, or 128 for "
            f"sequences of 16384."
        )
    if contour not in CONTOURS:
        raise ValueError(
            f"pathfinder: a contour has 6, 9 or 14 dashes; got {contour}. Take 14, which is the hardest."
        )
    plain = Rules(contour=contour)
    return plain._replace(apart=max(plain.apart, min(2 * plain.canvas / size, plain.seeds - plain.length)))


def label(seed: int, index: int) -> int:
    """Whether the markers of picture ``index`` are on one contour: a fair coin."""
    return mixed(2 * seed, index) >> 63


def scene(seed: int, index: int, rules: Rules) -> Scene:
    """Where everything lies in picture ``index``."""
    from hippodrome.data import _pathfinder_kernel as kernel

    room = 2 * rules.contour + rules.distracting
    dashes, owner = np.empty((room, 2, 2)), np.empty(room, dtype=np.int64)
    count = kernel.scene(rules, np.uint64(mixed(2 * seed + 1, index)), dashes, owner)
    dashes, owner = dashes[:count], owner[:count]
    first = mixed(2 * seed, index) & 1
    last = first if label(seed, index) else 1 - first
    return Scene(dashes, owner, np.stack([dashes[owner == first][0, 0], dashes[owner == last][-1, 1]]))


def picture(drawn: Scene, size: int, rules: Rules) -> np.ndarray:
    """The scene as bytes (size, size)."""
    shrink = _lanczos(rules.canvas, size)
    small = shrink @ canvas(drawn.dashes, drawn.markers, rules) @ shrink.T
    brighter = max(1.0, rules.canvas / size / rules.thickness)
    return np.clip(255 * brighter * small, 0, 255).round().astype(np.uint8)


def canvas(segments: np.ndarray, markers: np.ndarray, rules: Rules) -> np.ndarray:
    """Segments (k, 2, 2) and discs around ``markers`` (m, 2) as brightness from 0 to 1 (canvas, canvas)."""
    from hippodrome.data import _pathfinder_kernel as kernel

    drawn = np.zeros((rules.canvas, rules.canvas), dtype=np.float32)
    kernel.draw(rules, segments, markers, drawn)
    return drawn


@cache
def _lanczos(canvas: int, size: int) -> np.ndarray:
    """The matrix (size, canvas) that shortens a line of pixels: Lanczos's window of three lobes."""
    scale = canvas / size
    centres = (np.arange(size) + 0.5) * scale
    away = (np.arange(canvas) + 0.5 - centres[:, None]) / scale
    weights = np.where(np.abs(away) < 3, np.sinc(away) * np.sinc(away / 3), 0.0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
