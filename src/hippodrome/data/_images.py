"""Images read as sequences: row by row or pixel by pixel, in their own order or in one that is drawn once."""

from collections.abc import Callable
from typing import Any

import numpy as np

from hippodrome.data._labelled import labelled_task
from hippodrome.data.base import Task, mixed

ORDERS = ("rows", "pixels")


def image_task(
    images: np.ndarray,
    labels: np.ndarray,
    parts: tuple[np.ndarray, np.ndarray, np.ndarray],
    classes: list[str],
    name: str,
    where: str,
    details: dict[str, Any],
    *,
    order: str = "rows",
    permute: int | None = None,
) -> Task:
    """The classification task of images of one size.

    A token is a row (all its pixels and colours) or a pixel (its colours). Values are scaled by one mean and
    one deviation for each colour, over all pixels of the train images, so that a column that is nearly always
    dark is not blown up.

    Args:
        images: (n, height, width) or (n, height, width, colours), whole numbers.
        labels: index of the class of each.
        parts: indices of train, validation and test.
        classes: names in the order of the indices.
        name: of the task.
        where: for errors.
        details: for the report; size and order are added.
        order: "rows" or "pixels".
        permute: seed of one order of the tokens for all images; None keeps theirs.

    Raises:
        ValueError: an order that there is not, or what ``labelled_task`` refuses.
    """
    read = reader(images, where, order, permute)
    images = images[..., None] if images.ndim == 3 else images
    n, height, width, colours = images.shape
    tokens, channels = read(0).shape
    location, scale = _statistics(images, parts[0])
    details = {
        **details,
        **({"levels": 256} if images.dtype == np.uint8 else {}),
        "images": f"{height} x {width}, {colours} {'colour' if colours == 1 else 'colours'}",
        "order": f"{tokens} {order} of {channels}"
        + ("" if permute is None else f", permuted once (seed {permute})"),
        **({"grid": [height, width]} if order == "pixels" and permute is None else {}),
    }
    return labelled_task(
        read,
        labels,
        parts,
        classes,
        name,
        where,
        details,
        lengths=np.full(n, tokens),
        statistics=(location * (channels // colours), scale * (channels // colours)),
    )


def reader(
    images: np.ndarray, where: str, order: str = "rows", permute: int | None = None
) -> Callable[[int], np.ndarray]:
    """What gives image i as a sequence (t, c); arguments as in ``image_task``.

    Raises:
        ValueError: an order that there is not.
    """
    if order not in ORDERS:
        raise ValueError(
            f"{where}: images are read by 'rows' or 'pixels'; got {order!r}. Take one of the two."
        )
    n, height, width, colours = images.shape if images.ndim == 4 else (*images.shape, 1)
    tokens, channels = (height, width * colours) if order == "rows" else (height * width, colours)
    sequences = images.reshape(n, tokens, channels)
    to = slice(None) if permute is None else permutation(tokens, permute)
    return lambda index: sequences[index][to]


def greyed(images: np.ndarray) -> np.ndarray:
    """Pictures of bytes (n, height, width, 3) as (n, height, width, 1); grey ones (n, height, width) as such.

    Luma of Rec. 601: 0.299 red + 0.587 green + 0.114 blue, rounded.
    """
    if images.ndim == 3 or images.shape[-1] == 1:
        return images
    if images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"pictures of three colours in bytes are made grey; got {images.dtype} of shape {images.shape}. "
            f"Leave data.grey out."
        )
    grey = np.empty((*images.shape[:3], 1), dtype=np.uint8)
    for start in range(0, len(images), 1024):
        red, green, blue = np.moveaxis(images[start : start + 1024].astype(np.uint32), -1, 0)
        grey[start : start + 1024, ..., 0] = (299 * red + 587 * green + 114 * blue + 500) // 1000
    return grey


def permutation(tokens: int, seed: int) -> np.ndarray:
    """One order of so many tokens, the same for the same seed on every machine and version."""
    return np.array(sorted(range(tokens), key=lambda i: mixed(seed, i)))


def _statistics(images: np.ndarray, chosen: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and deviation of each colour over all pixels of the chosen images, in pieces that fit memory."""
    total = squares = np.zeros(images.shape[-1])
    for start in range(0, len(chosen), 1024):
        piece = images[chosen[start : start + 1024]].astype(np.float64)
        total = total + piece.sum((0, 1, 2))
        squares = squares + np.square(piece).sum((0, 1, 2))
    count = max(len(chosen), 1) * images.shape[1] * images.shape[2]
    mean = total / count
    return mean.tolist(), np.sqrt(np.maximum(squares / count - mean**2, 0.0)).tolist()
