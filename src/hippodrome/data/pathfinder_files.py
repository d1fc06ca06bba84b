"""The public files of Pathfinder: a folder of grey pictures, and of metadata that name and label them."""

import io
from pathlib import Path

import numpy as np

from hippodrome.data._labelled import fewer, keeping, labelled_task, stratified
from hippodrome.data.base import Task, fault, shown
from hippodrome.data.pathfinder import CLASSES, KEPT_BYTES
from hippodrome.data.pictures import read as read_pictures

LABEL = 3
"""The column of the metadata that says whether the markers are on one contour, counted from 0."""


def open_pathfinder_files(path: str | Path, *, count: int | None = None, seed: int = 0) -> Task:
    """A classification task over a folder such as ``pathfinder32/curv_contour_length_14``, pixel by pixel.

    ``folder/metadata/*.npy`` are lines of text, or arrays of it, as the Long Range Arena (Tay et al. 2020,
    arXiv 2011.04006) and the authors' generator store them: folder, file, number, label and more. A tenth of
    each class tests and a tenth validates. Empty pictures, of which the arena holds one, are left out.
    Reading needs Pillow.

    Args:
        path: the folder.
        count: how many train pictures to keep, the same share of each class; None for all.
        seed: of the cuts.

    Raises:
        ValueError: no metadata, a line without a label or with one that is not 0 or 1, a picture that is
            absent, cannot be read, or is not square and grey like the first; it names the file.
    """
    path = Path(path)
    tables = sorted((path / "metadata").glob("*.npy"))
    if not tables:
        inside = sorted(p.parent.name for p in path.glob("*/metadata"))
        raise fault(
            path,
            "a folder 'metadata' of .npy files in it",
            f"{', '.join(inside)}, which have one" if inside else "none",
            f"Name one of them, {path / inside[-1]} say." if inside else "Check the path.",
        )
    files, found, empty = [], [], 0
    for table in tables:
        for row, words in enumerate(_rows(table), 1):
            if len(words) <= LABEL or words[LABEL] not in ("0", "1"):
                came = shown(words[LABEL]) if len(words) > LABEL else f"{len(words)} columns"
                raise fault(table, "a label 0 or 1 in column 4", came, "Check the file.", row=row)
            file = path / words[0] / words[1]
            if not file.is_file():
                raise fault(table, f"a picture {file}", "none", "Unpack the pictures too.", row=row)
            if not file.stat().st_size:
                empty += 1
                continue
            files.append(file)
            found.append(int(words[LABEL]))
    if not files:
        raise fault(path, "pictures", "none that is not empty", "Fetch the folder again.")
    shape = read_pictures(files[:1]).shape[1:]

    def read(index: int) -> np.ndarray:
        pixels = read_pictures([files[index]])[0]
        if pixels.shape != shape or shape[2] != 1:
            raise fault(
                files[index], f"a grey picture of {shape[0]} x {shape[1]}", f"one of {pixels.shape}",
                "Remove it.",
            )  # fmt: skip
        return pixels.reshape(-1, 1)

    labels = np.array(found)
    rest, test = stratified(labels, np.arange(len(files)), 0.1, seed + 1)
    train, valid = stratified(labels, rest, 1 / 9, seed)
    details = {
        "source": str(path),
        "images": f"{shape[0]} x {shape[1]}, 1 colour",
        "order": f"{shape[0] * shape[1]} pixels of 1",
        "levels": 256,
        "grid": list(shape[:2]),
    }
    if empty:
        details["left out"] = f"{empty} empty {'picture' if empty == 1 else 'pictures'}"
    return labelled_task(
        keeping(read, KEPT_BYTES),
        labels,
        (fewer(labels, train, count, seed), valid, test),
        list(CLASSES),
        path.name,
        str(path),
        details,
        lengths=np.full(len(files), shape[0] * shape[1]),
        statistics_from=256,
    )


def _rows(table: Path) -> list[list[str]]:
    """The words of each line of one file of metadata."""
    data = table.read_bytes()
    if data[:6] != b"\x93NUMPY":
        return [line.split() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise fault(table, "an array of text", f"one that cannot be read ({reason})", "Fetch it.") from None
    if array.ndim != 2 or array.dtype.kind not in "US":
        raise fault(table, "an array of text (n, columns)", f"{array.dtype} of {array.shape}", "Fetch it.")
    return [[str(word) for word in row] for row in array.astype(str)]
