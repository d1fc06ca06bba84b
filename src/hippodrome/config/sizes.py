"""Sizes that mixers and backbones ask for in their constructors, filled in from the task they are to learn:
those of grids, and how many variates a series has."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from hippodrome.config.find import choices, find, kinds
from hippodrome.config.patterns import option_kinds, split_shape


def grid(kind: str, facts: Mapping[str, Any], details: Mapping[str, Any]) -> list[int] | None:
    """The grid that a task's rows or tokens are: of a video the points of a latent frame, of a picture its
    patches, of pictures read pixel by pixel in their own order the picture; None where there is none.

    ``facts`` are the task's and what the model is told beside them, ``details`` the task's.
    """
    if kind in ("video", "vision"):
        model: Any = find("models", kind)
        patch = facts.get("patch", inspect.signature(model.__init__).parameters["patch"].default)
        return [side // int(patch) for side in facts["size"]]
    found = details.get("grid")
    return None if found is None else [int(side) for side in found]


def variates(kind: str, facts: Mapping[str, Any]) -> int | None:
    """How many rows a forecaster makes of a series: its variates, and its moving covariates where they are
    rows too; None for other kinds of task.

    ``facts`` as in ``grid``.
    """
    if kind != "forecasting" or "channels" not in facts:
        return None
    beside = facts.get("covariates") == "variates"
    return int(facts["channels"]) + beside * int(facts.get("observed", 0) + facts.get("known", 0))


def with_sizes(
    pattern: str | Sequence[str],
    options: Mapping[str, Mapping[str, Any]] | None,
    sizes: Sequence[int] | None,
    variates: int | None = None,
) -> dict[str, dict[str, Any]]:
    """The options of a pattern's parts with ``sizes``, and ``variates`` of the backbone in front of it, for
    those that ask for them and were given none.

    Raises:
        ValueError: a mixer asks for sizes and the task has no grid.
    """
    filled = {kind: dict(given) for kind, given in (options or {}).items()}
    for kind in _asking(pattern, filled):
        if sizes is None:
            raise ValueError(
                f"{kind} runs over a grid, and the rows of this task are none that is known. Take pictures "
                f"with -s data.order=pixels, or a video; or give -s model.options.{kind}.sizes='[rows, "
                f"columns]'; or choose another model"
            )
        filled[kind] = {**filled.get(kind, {}), "sizes": list(sizes)}
    shape = split_shape(pattern)[0]
    if shape is not None and variates is not None and _asks(shape, "variates"):
        filled[shape] = {"variates": variates, **filled.get(shape, {})}
    return filled


def with_small_sizes(
    pattern: str, options: Mapping[str, Mapping[str, Any]] | None, width: int, length: int
) -> dict[str, dict[str, Any]]:
    """``with_sizes`` where there is no task, to look at mixers or to time them.

    What reads a row as one whole gets the row of ``length`` tokens as a grid, as square as may be; of any
    other a token of ``width`` numbers is a frame of 4 x 4 points, or of 2 x 2 or one where that does not
    divide the width.
    """
    filled = {kind: dict(given) for kind, given in (options or {}).items()}
    for kind in _asking(pattern, filled):
        if _class(kind).accepts_resets:
            side = next(side for side in (4, 2, 1) if width % side**2 == 0)
            sizes = [side, side]
        else:
            rows = next(rows for rows in range(math.isqrt(length), 0, -1) if length % rows == 0)
            sizes = [rows, length // rows]
        filled[kind] = {**filled.get(kind, {}), "sizes": sizes}
    return filled


def _asking(pattern: str | Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The kinds in a pattern that ask for sizes and were given none."""
    kinds = option_kinds(pattern)
    return [kind for kind in kinds if "sizes" not in options.get(kind, {}) and _asks(kind, "sizes")]


def _asks(kind: str, name: str) -> bool:
    return name in inspect.signature(_class(kind).__init__).parameters


def _class(kind: str) -> Any:
    """The class of a mixer, or of the backbone in front of a pattern."""
    return find("mixers" if kind in choices("mixers") else "backbones", kind)


def own_options(
    kind: str, options: Mapping[str, Mapping[str, Any]] | None
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What of the options by kind is for the model of this kind itself, and the rest, for what is inside it.

    ``vision.patch=2`` beside ``mamba.d_state=8``.
    """
    rest = {name: dict(given) for name, given in (options or {}).items()}
    return (rest.pop(kind, {}) if kind in kinds("models") else {}), rest


def width_step(kind: str, sizes: Sequence[int] | None) -> int:
    """What widths to try are multiples of: 8, or where tokens are flattened frames their points."""
    return math.prod(sizes) if kind == "video" and sizes is not None else 8
