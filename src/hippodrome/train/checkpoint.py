"""Checkpoints that a kill cannot spoil: written aside, flushed, renamed; checked by a checksum when read.

The file is named by its step and the CRC-32 of its bytes, so that one that was cut off or damaged is known
for what it is and the one before it is taken. Only tensors and plain values are inside (``weights_only``).
"""

import os
import random
import re
import shutil
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

KEPT = 2
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{8})\.pt")


class _Sink:
    """A file for ``torch.save`` that sums what is written and keeps an error for its owner.

    The error is not raised inside PyTorch's writer, which would end the process from a destructor.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.crc = file, 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self.file.write(data)
                self.crc = zlib.crc32(data, self.crc)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Asked for by ``torch.save``; the owner flushes."""


def write_atomically(
    path: Path, fill: Callable[[BinaryIO], object], name: Callable[[], str] | None = None
) -> Path:
    """Writes a file under a temporary name, flushes it to the disk, and renames it to ``path``.

    ``name`` may choose the last part of the name when the content is known. Where it is stopped or fails, it
    removes what was written; a file that stood under the name stays as it was.
    """
    aside = path.with_name(f".{path.name}.tmp")
    try:
        with aside.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        target = path if name is None else path.with_name(name())
        aside.replace(target)
    except BaseException:  # Ctrl-C too
        aside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY) if os.name == "posix" else None
    if folder is not None:
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return target


def check_folder(folder: Path) -> None:
    """Tells before long work whether ``write_folder`` can make a folder afterwards.

    Raises ValueError where something is there already, no folder is named, or none can be made at that place.
    """
    if folder.name in ("", ".."):
        raise ValueError(f"{str(folder)!r} names no folder that can be made anew. Name one")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already and is not an empty folder. Name another")
    there = next(place for place in folder.absolute().parents if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise ValueError(f"{folder} cannot be made: {there} is no folder to write to. Name another")


def write_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Makes a folder that appears whole, with all that ``fill`` writes into it, or not at all.

    Raises ValueError as ``check_folder`` does, and what ``fill`` raises, having removed what it wrote.
    """
    check_folder(folder)
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        fill(aside)
        for path in aside.rglob("*"):
            if path.is_file():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        if folder.exists():
            folder.rmdir()
        aside.replace(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def write(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Writes the checkpoint of a step and removes all but the last two.

    Raises OSError in a sentence where the disk is full or the folder cannot be written; those before stay.
    """
    sink: _Sink | None = None

    def fill(file: BinaryIO) -> None:
        nonlocal sink
        sink = _Sink(file)
        torch.save(dict(state), sink)  # type: ignore[arg-type]
        if sink.error is not None:
            raise sink.error

    def name() -> str:
        return f"step-{step:08d}-{sink.crc if sink else 0:08x}.pt"

    try:
        written = write_atomically(folder / f"step-{step:08d}.pt", fill, name)
    except OSError as error:
        last = next(iter(listed(folder)), None)
        kept = f"the last good one, {last.name}, is intact" if last else "there is none before it"
        raise OSError(
            f"the checkpoint of step {step} could not be written to {folder} ({error.strerror or error}); "
            f"{kept}. Make room there, then resume"
        ) from None
    for old in listed(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    for same in folder.glob(f"step-{step:08d}-*.pt"):
        if same != written:
            same.unlink(missing_ok=True)
    return written


def listed(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    found = [(int(m[1]), path) for path in folder.glob("step-*.pt") if (m := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda pair: pair[0], reverse=True)]


def latest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; damaged ones are passed over with a warning."""
    for path in listed(folder):
        match = _NAME.fullmatch(path.name)
        if match and f"{_checksum(path):08x}" == match[2]:
            return path
        warnings.warn(f"the checkpoint {path} is damaged; taking the one before it", stacklevel=2)
    return None


def read(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU. Reads tensors and plain values only, never code."""
    return torch.load(path, map_location="cpu", weights_only=True)


def _checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


def random_states(device: torch.device) -> dict[str, Any]:
    """The state of every generator that training may draw from: PyTorch's, NumPy's, Python's."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # type: ignore[misc]
    keys = np.asarray(keys)
    return {
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [
            str(kind),
            torch.from_numpy(keys.astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
        "python": random.getstate(),
    }


def restore_random(states: Mapping[str, Any], device: torch.device) -> None:
    """Puts the generators back where ``random_states`` found them."""
    torch.set_rng_state(states["torch"])
    if states["device"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["device"], device)
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, numbers, gauss_next = states["python"]
    random.setstate((version, tuple(numbers), gauss_next))
