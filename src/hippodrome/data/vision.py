"""Pictures to classify as a whole: any reader of images, with what a model of pictures must know of them."""

from pathlib import Path

from hippodrome.data.base import Task
from hippodrome.data.idx import open_idx
from hippodrome.data.npz import open_npz
from hippodrome.data.pictures import open_pictures


def open_vision(
    path: str | Path, *, grey: bool = False, count: int | None = None, valid: float = 0.2, seed: int = 0
) -> Task:
    """A task of kind "vision" from an archive, a folder of pictures by class, or a folder of IDX files.

    The reader is that of the classification of these files, pixel by pixel, and the rows are the same; a
    model of pictures is told their size besides.

    Args:
        path: the archive (``.npz``) or the folder.
        grey: whether colours are made grey; pictures of IDX files have none.
        count: how many train pictures to keep, the same share of each class; None for all.
        valid: share of the train pictures to validate on.
        seed: of the cuts.

    Raises:
        ValueError: what the reader of these files refuses, or what it reads are no pictures.
    """
    path = Path(path)
    given = {"order": "pixels", "count": count, "valid": valid, "seed": seed}
    if path.is_dir() and any(path.glob("*-idx[13]-ubyte*")):
        task = open_idx(path, **given)  # type: ignore[arg-type]
    elif path.is_dir():
        task = open_pictures(path, grey=grey, **given)  # type: ignore[arg-type]
    else:
        task = open_npz(path, grey=grey, **given)  # type: ignore[arg-type]
    facts = {key: task.facts[key] for key in ("classes", "channels", "location", "scale")}
    return task._replace(kind="vision", facts={**facts, "size": task.details["grid"]})
