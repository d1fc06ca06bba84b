"""Sizes of grids that mixers ask for in their constructors, filled in from the task they are to learn."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from hippodrome.config.find import find
from hippodrome.config.patterns import BOTH_WAYS, pattern_kinds


def grid(kind: str, facts: Mapping[str, Any], details: Mapping[str, Any]) -> list[int] | None:
    """The grid that a task's rows or tokens are: of a video the points of a latent frame, of pictures read
    pixel by pixel in their own order the picture; None where there is none.

    ``facts`` and ``details`` are the task's.
    """
    if kind == "video":
        return [side // int(facts["patch"]) for side in facts["size"]]
    found = details.get("grid")
    return None if found is None else [int(side) for side in found]


def with_sizes(
    pattern: str, options: Mapping[str, Mapping[str, Any]] | None, sizes: Sequence[int] | None
) -> dict[str, dict[str, Any]]:
    """The options of a pattern's mixers with ``sizes`` for those that ask for it and were given none.

    Raises:
        ValueError: a mixer asks for sizes and the task has no grid.
    """
    filled = {kind: dict(given) for kind, given in (options or {}).items()}
    for layer in pattern_kinds(pattern):
        kind = layer.removeprefix(BOTH_WAYS)
        mixer: Any = find("mixers", kind)
        parameters = inspect.signature(mixer.__init__).parameters
        if "sizes" not in parameters or "sizes" in filled.get(kind, {}):
            continue
        if sizes is None:
            raise ValueError(
                f"{kind} runs over a grid, and the rows of this task are none that is known. Take pictures "
                f"with -s data.order=pixels, or a video; or give -s model.options.{kind}.sizes='[rows, "
                f"columns]'; or choose another model"
            )
        filled[kind] = {**filled.get(kind, {}), "sizes": list(sizes)}
    return filled


def width_step(kind: str, sizes: Sequence[int] | None) -> int:
    """What widths to try are multiples of: 8, or where tokens are flattened frames their points."""
    return math.prod(sizes) if kind == "video" and sizes is not None else 8
