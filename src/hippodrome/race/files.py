"""Files and folders of a race, written in one piece or not at all."""

import os
import shutil
from pathlib import Path

from hippodrome.train.checkpoint import write_atomically


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``; a reader sees the old file or the new one, never a part.

    Raises OSError with a sentence where the disk is full or the folder cannot be written.
    """
    try:
        write_atomically(path, lambda file: file.write(text.encode()))
    except OSError as error:
        reason = error.strerror or error
        message = f"{path.name} could not be written ({reason}). Make room, then start the race again"
        raise OSError(error.errno, message, str(path.parent)) from None


def copy_folder(source: Path, target: Path, leave_out: tuple[str, ...] = ()) -> None:
    """Replace ``target`` by a copy of ``source``, complete when it appears."""
    fresh = target.with_name(f".{target.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh, ignore=shutil.ignore_patterns(*leave_out))
    if target.exists():
        shutil.rmtree(target)
    os.replace(fresh, target)
