"""Folders of IDX files, the format of MNIST: images and labels in plain or gzipped arrays of bytes."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from hippodrome.data._images import image_task
from hippodrome.data._labelled import fewer, stratified
from hippodrome.data.base import Task, fault

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""The third byte of a file -> what its numbers are, big-endian."""


def open_idx(
    path: str | Path,
    *,
    order: str = "rows",
    permute: int | None = None,
    count: int | None = None,
    valid: float = 0.2,
    seed: int = 0,
) -> Task:
    """A classification task from a folder with ``train-images-idx3-ubyte`` and its three companions.

    The companions are ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``;
    each may end with ``.gz``. The t10k images are the test part and left whole.

    Args:
        path: the folder.
        order: "rows" (a token is a row) or "pixels".
        permute: seed of one order of the tokens for all images; None keeps theirs.
        count: how many train images to keep, the same share of each class; None for all.
        valid: share of the train images to validate on.
        seed: of the cuts.

    Raises:
        ValueError: a file that is absent or cut off or no IDX file, or images and labels that do not match;
            it names the file.
    """
    path = Path(path)
    arrays: list[np.ndarray] = []
    for part in ("train", "t10k"):
        images = read_idx(_find(path, f"{part}-images-idx3-ubyte"))
        file = _find(path, f"{part}-labels-idx1-ubyte")
        labels = read_idx(file)
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise fault(
                file,
                f"one label for each of {len(images)} images",
                f"labels of shape {labels.shape} for images of shape {images.shape}",
                "Take files of one data set.",
            )
        arrays += [images, labels]
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        raise fault(
            path,
            f"test images of {arrays[0].shape[1:]} as in train",
            f"{arrays[2].shape[1:]}",
            "Take files of one data set.",
        )
    classes, labels = np.unique(np.concatenate([arrays[1], arrays[3]]), return_inverse=True)
    everything, cut = np.arange(len(labels)), len(arrays[1])
    kept = fewer(labels, everything[:cut], count, seed)
    first, second = stratified(labels, kept, valid, seed)
    return image_task(
        np.concatenate([arrays[0], arrays[2]]),
        labels,
        (first, second, everything[cut:]),
        [str(name) for name in classes],
        path.name,
        str(path),
        {"source": str(path), "test": "the t10k files"},
        order=order,
        permute=permute,
    )


def open_images(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The train images of a folder (or, if it has none, the t10k images), and the t10k images beside them.

    Raises:
        ValueError: neither is there, or a file is no IDX file.
    """
    parts = [part for part in ("train", "t10k") if any(path.glob(f"{part}-images-idx3-ubyte*"))]
    images = [read_idx(_find(path, f"{part}-images-idx3-ubyte")) for part in parts or ["train"]]
    return images[0], images[1] if len(images) > 1 else None


def read_idx(path: Path) -> np.ndarray:
    """The array in one IDX file, plain or gzipped.

    Two zero bytes, one for the type, one for the number of axes, their sizes as big-endian 32-bit numbers,
    and the values, the last axis fastest (LeCun, Cortes, Burges: "The MNIST database", file formats).

    Raises:
        ValueError: not such a file, or one that ends early or late.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise fault(path, "an IDX file", f"one that cannot be read ({error})", "Fetch it again.") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _TYPES or not data[3]:
        raise fault(
            path, "an IDX file: two zero bytes, a type, a number of axes", repr(data[:4]), "Check the file."
        )
    axes, kind = data[3], np.dtype(_TYPES[data[2]])
    shape = tuple(int(size) for size in np.frombuffer(data[4 : 4 + 4 * axes], ">u4"))
    wanted = 4 + 4 * axes + math.prod(shape) * kind.itemsize
    if len(shape) != axes or len(data) != wanted:
        raise fault(path, f"{wanted} bytes for an array of {shape}", f"{len(data)}", "Fetch it again.")
    return np.frombuffer(data, kind, offset=4 + 4 * axes).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    raise fault(folder, f"{name} or {name}.gz in it", "neither", "Put it there.")
