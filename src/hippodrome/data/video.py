"""Videos of pictures that move and bounce: shapes that are generated, or digits from a file of pictures."""

from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hippodrome.data.base import Task, fault, mixed
from hippodrome.data.idx import open_images
from hippodrome.ops.ssim import ssim
from hippodrome.shapes import VideoBatch

PATCH = 4
"""Pixels along each side of the patches that a model cuts frames into."""


class VideoItem(NamedTuple):
    """Frames (t, rows, columns, colours) of values from 0 to 1."""

    frames: Tensor


class Moving(Dataset):
    """Frames in which pictures move straight on and bounce off the edges, one in front of the other.

    Which pictures, where from and where to follow from the seed and the number of the video alone (after
    Srivastava, Mansimov, Salakhutdinov 2015, "Unsupervised learning of video representations using LSTMs",
    arXiv 1502.04681). A picture crosses a tenth of its room to move in each frame, and where pictures overlap
    the brighter value shows.

    Args:
        pictures: (n, rows, columns, colours) of values from 0 to 1, smaller than a frame.
        count: videos.
        length: frames of each.
        size: rows and columns of a frame.
        objects: pictures in each video.
        seed: of all of them; parts of one task take different ones.
    """

    def __init__(
        self, pictures: np.ndarray, count: int, length: int, size: int, objects: int, seed: int
    ) -> None:
        self.pictures, self.count, self.length = pictures, count, length
        self.size, self.objects, self.seed = size, objects, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> VideoItem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        numbers = np.random.default_rng(mixed(self.seed, index))
        _, rows, columns, colours = self.pictures.shape
        frames = np.zeros((self.length, self.size, self.size, colours), dtype=np.float32)
        room = np.array([self.size - rows, self.size - columns])
        for _ in range(self.objects):
            picture = self.pictures[numbers.integers(len(self.pictures))]
            angle = numbers.uniform(0, 2 * np.pi)
            pace = 0.1 * room * np.array([np.sin(angle), np.cos(angle)])
            path = numbers.uniform(0, 1, 2) * room + np.arange(self.length)[:, None] * pace
            # Unfolded, a path that bounces is straight, and what it bounces in has twice the room.
            path = path % (2 * room)
            for frame, (top, left) in zip(frames, np.minimum(path, 2 * room - path).round(), strict=True):
                place = frame[int(top) : int(top) + rows, int(left) : int(left) + columns]
                np.maximum(place, picture, out=place)
        return VideoItem(torch.from_numpy(frames))


def collate(items: list[VideoItem]) -> VideoBatch:
    """Videos of one length to a batch."""
    return VideoBatch(torch.stack([item.frames for item in items]))


def open_moving_shapes(
    *, length: int = 20, size: int = 32, objects: int = 2, count: int = 2000, seed: int = 0
) -> Task:
    """Discs, squares, triangles, rings and crosses that bounce in a frame: no file is needed.

    Args:
        length: frames of a video; the first half is the context of the open loop.
        size: rows and columns of a frame.
        objects: shapes in each video.
        count: train videos; a tenth as many validate, and as many test.
        seed: of the videos.

    Raises:
        ValueError: a frame too small, or less than two frames.
    """
    side = max(3, 7 * size // 16)
    y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    far = np.hypot(x, y)
    shapes = [
        far < 0.5,
        np.maximum(abs(x), abs(y)) < 0.4,
        (y > 2 * abs(x) - 0.45) & (y < 0.45),
        (far < 0.5) & (far > 0.3),
        np.minimum(abs(x), abs(y)) < 0.13,
    ]
    pictures = np.stack(shapes).astype(np.float32)[..., None]
    details = {"source": "generated shapes"}
    return _task("moving-shapes", (pictures,) * 3, details, length, size, objects, count, seed)


def open_moving(
    path: str | Path,
    *,
    length: int = 20,
    size: int = 32,
    objects: int = 2,
    count: int = 2000,
    seed: int = 0,
    valid: float = 0.2,
) -> Task:
    """Pictures from an archive or a folder of IDX files, digits mostly, that bounce in a frame.

    The archive holds ``x_train`` and ``x_test``, or ``inputs`` of which a fifth tests: bytes (uint8) of (n,
    rows, columns) or (n, rows, columns, colours); labels are not read. Pictures wider than half of a frame
    are shrunk to that by a whole factor. Videos of the test part hold pictures that train videos do not, and
    so do those of the validation part.

    Args:
        path: the archive (``.npz``), or the folder.
        length: frames of a video; the first half is the context of the open loop.
        size: rows and columns of a frame; 64 is usual.
        objects: pictures in each video.
        count: train videos; a tenth as many validate, and as many test.
        seed: of the cut and of the videos.
        valid: share of the train pictures that the validation part shows.

    Raises:
        ValueError: no such pictures, too few of them, a frame too small, or less than two frames.
    """
    path = Path(path)
    train, test = open_images(path) if path.is_dir() else _archive(path)
    order = np.random.default_rng(seed).permutation(len(train))
    if test is None:
        cut = len(train) // 5
        train, test, order = train[order[cut:]], train[order[:cut]], np.arange(len(train) - cut)
    cut = round(valid * len(train))
    parts = (train[order[cut:]], train[order[:cut]], test)
    if min(map(len, parts)) < 1:
        raise fault(
            path, "a picture at least to train on, to validate on and to test on",
            f"{', '.join(str(len(part)) for part in parts)}", "Give more, or another data.valid.",
        )  # fmt: skip
    details = {"source": str(path), "pictures": dict(zip(_PARTS, map(len, parts), strict=True))}
    shrunk = tuple(_shrunk(part, size) for part in parts)
    return _task(f"moving-{path.stem}", shrunk, details, length, size, objects, count, seed)


_PARTS = ("train", "valid", "test")


def _archive(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = [archive[key] for key in ("x_train", "x_test", "inputs") if key in archive.files]
    except (ValueError, OSError, BadZipFile) as error:
        raise fault(path, "an archive of arrays", f"{error}", "Write it with numpy.savez.") from None
    if not found or any(x.dtype != np.uint8 or x.ndim not in (3, 4) or not x.size for x in found):
        said = ", ".join(f"{x.dtype} of shape {x.shape}" for x in found) or "neither"
        raise fault(
            path, "pictures under 'x_train' and 'x_test', or 'inputs': uint8, (n, rows, columns[, colours])",
            said, "Store them so.",
        )  # fmt: skip
    return found[0], found[1] if len(found) > 1 else None


def _shrunk(pictures: np.ndarray, size: int) -> np.ndarray:
    """Values from 0 to 1, colours as an axis, means over squares where a picture is wide."""
    pictures = (pictures if pictures.ndim == 4 else pictures[..., None]).astype(np.float32) / 255
    n, rows, columns, colours = pictures.shape
    factor = -(-max(rows, columns) // max(1, size // 2))
    if factor == 1:
        return pictures
    rows, columns = rows // factor, columns // factor
    whole = pictures[:, : rows * factor, : columns * factor]
    return whole.reshape(n, rows, factor, columns, factor, colours).mean((2, 4))


def _task(
    name: str,
    pictures: tuple[np.ndarray, ...],
    details: dict[str, Any],
    length: int,
    size: int,
    objects: int,
    count: int,
    seed: int,
) -> Task:
    if length < 2 or objects < 1 or count < 1:
        raise ValueError(
            f"{name}: a video has two frames and one picture at least, and there is one to train on; got "
            f"length={length}, objects={objects}, count={count}. Take 20, 2 and 2000, say."
        )
    if size < 2 * PATCH or size % PATCH:
        raise ValueError(
            f"{name}: frames are cut into patches of {PATCH} x {PATCH} pixels, so their size is a multiple "
            f"of {PATCH} from {2 * PATCH} on; got {size}. Take 32, say."
        )
    held = max(count // 10, 1)
    sizes = dict(zip(_PARTS, (count, held, held), strict=True))
    train, valid, test = (
        Moving(shown, n, length, size, objects, 3 * seed + part)
        for part, (shown, n) in enumerate(zip(pictures, sizes.values(), strict=True))
    )
    context = max(1, length // 2)
    details = {
        **details,
        "videos": sizes,
        "frames": f"{length}, the open loop behind the first {context}",
        "size": f"{size} x {size}",
        "objects": objects,
        "seed": seed,
    }
    facts = {"size": [size, size], "colours": pictures[0].shape[-1], "patch": PATCH, "context": context}

    def naive() -> dict[str, dict[str, float]]:
        """The last frame once more, and the mean of all pixels of a hundred train videos everywhere."""
        mean = float(np.mean([train[i].frames.mean() for i in range(min(count, 100))]))
        sums: dict[str, dict[str, float]] = {"last frame": {}, "train mean": {}}
        for i in range(len(test)):
            frames = test[i].frames
            said = {"": (frames[:-1], frames[1:])}
            if length > context:
                ahead = frames[context:]
                said["open_"] = (frames[context - 1 : context].expand_as(ahead), ahead)
            for prefix, (copied, wanted) in said.items():
                flat = torch.full_like(wanted, mean)
                for row, guess in (("last frame", copied), ("train mean", flat)):
                    errors = {"mse": (guess - wanted).square().mean(), "ssim": ssim(guess, wanted).mean()}
                    for metric, value in errors.items():
                        key = prefix + metric
                        sums[row][key] = sums[row].get(key, 0.0) + float(value) / len(test)
        return sums

    return Task("video", name, train, valid, test, collate, facts, None, details, naive)
