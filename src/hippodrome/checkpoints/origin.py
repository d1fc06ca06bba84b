"""Where the weights of a run folder came from: ``origin.json``, which is what the way back needs to know."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hippodrome.checkpoints.families import families
from hippodrome.checkpoints.files import DTYPES, read_json
from hippodrome.config import suggest
from hippodrome.train.checkpoint import write_atomically

ORIGIN = "origin.json"
"""In a run folder: the layout, the configuration and the dtypes that its weights came with."""


def layouts() -> list[str]:
    """The names of all layouts."""
    return sorted(name for family in families().values() for name in family.LAYOUTS)


def read(folder: Path) -> dict[str, Any] | None:
    """What a run folder says of the checkpoint that it came from; None where it came from none.

    Raises:
        ValueError: a file that cannot be read, or does not say what it should.
    """
    path = folder / ORIGIN
    if not path.exists():
        return None
    found = read_json(path)
    layout, config, dtypes = (found.get(name) for name in ("layout", "config", "dtypes"))
    known = {str(kind).removeprefix("torch.") for kind in DTYPES.values()}
    if not isinstance(config, dict) or not isinstance(dtypes, dict) or not known.issuperset(dtypes.values()):
        raise ValueError(
            f"{path} has the configuration of a checkpoint and the type of each of its tensors; this one has "
            f"not. Convert the checkpoint again"
        )
    if layout not in layouts():
        raise ValueError(f"{path} names no layout that is known: {layout!r}{suggest(str(layout), layouts())}")
    return found


def write(folder: Path, origin: Mapping[str, Any]) -> None:
    """Says in a run folder where its weights came from."""
    text = json.dumps(origin, indent=2) + "\n"
    write_atomically(folder / ORIGIN, lambda file: file.write(text.encode()))
