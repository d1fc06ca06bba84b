"""The families of checkpoints: a file each reads a configuration of another program into a spec of ours.

A file has ``LAYOUTS``, the rename tables by the name of the layout, out of a recipe; ``layout(config)``, the
name of the one that a ``config.json`` is of, or None; ``read(config)``; and, where a model that began here
can be written in it, ``write(spec, layout)``.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, NamedTuple


class Reading(NamedTuple):
    """What a configuration says: the model's spec, and the lists of numbers its rename table looks up."""

    spec: dict[str, Any]
    lists: Mapping[str, Sequence[int]] = {}


def families() -> dict[str, Any]:
    """The modules of this folder by name."""
    found = sorted(name for _, name, _ in iter_modules([str(Path(__file__).parent)]))
    return {name: import_module(f"{__name__}.{name}") for name in found if not name.startswith("_")}
