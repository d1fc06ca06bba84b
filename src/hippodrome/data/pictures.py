"""Folders of pictures (PNG, JPEG), a subfolder a class, read as sequences of rows or pixels."""

from pathlib import Path

import numpy as np

from hippodrome.data._images import greyed, image_task
from hippodrome.data._labelled import folder_by_class
from hippodrome.data.base import Task, fault

SUFFIXES = (".png", ".jpg", ".jpeg")


def open_pictures(
    path: str | Path,
    *,
    order: str = "rows",
    permute: int | None = None,
    grey: bool = False,
    count: int | None = None,
    valid: float = 0.2,
    seed: int = 0,
) -> Task:
    """A classification task over pictures of one size: ``folder/CLASS/*.png`` (also jpg).

    ``folder/train``, ``folder/test`` and, if wanted, ``folder/valid``, with the classes inside, are taken as
    they are; without them 20 % of each class test. All are grey or all are in three colours, read into memory
    as bytes. Reading needs Pillow.

    Args:
        path: the folder.
        order: "rows" (a token is a row) or "pixels".
        permute: seed of one order of the tokens for all pictures; None keeps theirs.
        grey: whether colours are made grey.
        count: how many train pictures to keep, the same share of each class; None for all.
        valid: share of the train pictures to validate on, where there is no ``valid`` folder.
        seed: of the cuts.

    Raises:
        ValueError: no pictures, one that cannot be read or has more than 8 bits a colour, two that differ in
            size or in colours, or Pillow is absent; it names the file.
    """
    path = Path(path)
    found = folder_by_class(path, pictures, f"pictures ({', '.join(SUFFIXES)})", count, valid, seed)
    first, second, last = found.parts
    needed = np.sort(np.concatenate([first, second, last]))
    place = np.zeros(len(found.files), dtype=np.int64)
    place[needed] = np.arange(len(needed))
    images = read([found.files[i] for i in needed])
    return image_task(
        greyed(images) if grey else images,
        found.labels[needed],
        (place[first], place[second], place[last]),
        found.classes,
        path.name,
        str(path),
        {"source": str(path)},
        order=order,
        permute=permute,
    )


def pictures(folder: Path) -> list[Path]:
    """All pictures one subfolder down, in the order of their names."""
    return sorted(file for file in folder.glob("*/*") if file.suffix.lower() in SUFFIXES)


def read(files: list[Path]) -> np.ndarray:
    """All pictures (n, height, width, colours) as bytes.

    Raises:
        ValueError: as ``open_pictures``.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ValueError(
            f"{files[0]}: reading pictures needs Pillow, which is not installed. Run `pip install "
            f"'hippodrome[pictures]'`, or store the pixels in an .npz archive."
        ) from None
    images: np.ndarray | None = None
    for index, file in enumerate(files):
        try:
            with Image.open(file) as opened:
                if opened.mode[0] in "IF":  # 16 bits and more, which a conversion to bytes cuts off
                    raise fault(
                        file, "8 bits a colour", f"more (mode {opened.mode})", "Convert the pictures, or "
                        "store them as bytes in an .npz archive.",
                    )  # fmt: skip
                grey = opened.mode in ("1", "L", "LA")
                pixels = np.asarray(opened.convert("L" if grey else "RGB"))
        except OSError as error:
            reason = str(error).rstrip(".").split(" '")[0]
            raise fault(file, "a picture", f"a file that cannot be read ({reason})", "Remove it.") from None
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if images is None:
            images = np.empty((len(files), *pixels.shape), np.uint8)
        if pixels.shape != images.shape[1:]:
            raise fault(
                file, f"{_said(images.shape[1:])} as in {files[0].name}", _said(pixels.shape),
                "Bring all pictures to one size, all grey or all in colours.",
            )  # fmt: skip
        images[index] = pixels
    assert images is not None
    return images


def _said(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]}, {'grey' if shape[2] == 1 else 'in colours'}"
