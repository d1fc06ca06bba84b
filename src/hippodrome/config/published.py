"""Published systems: the recipes there are, a file each, found by looking and imported on need."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

from hippodrome.config.find import suggest
from hippodrome.config.recipe import Recipe
from hippodrome.config.sizes import grid, variates


def names() -> list[str]:
    """The names of all recipes, sorted."""
    spec = find_spec("hippodrome.recipes")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return sorted(name for _, name, _ in iter_modules(folders) if not name.startswith("_"))


def find(name: str) -> Recipe:
    """The recipe that a file holds. Raises ValueError for one there is not."""
    if name not in names():
        raise ValueError(f"there is no recipe {name!r}{suggest(name, names())}")
    module = import_module(f"hippodrome.recipes.{name}")
    return next(value for value in vars(module).values() if isinstance(value, Recipe))


def spec_of(
    recipe: Recipe,
    kind: str,
    facts: Mapping[str, Any],
    details: Mapping[str, Any],
    d_model: int | None = None,
    depth: int | None = None,
    own: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a recipe says of the model of a task: its backbone and settings around it.

    ``facts`` and ``details`` are the task's; ``own`` settings of the model win over the recipe's, and over
    both what only the data can know.
    """
    model = recipe.model
    around = {"language": model.language, "vision": model.vision, "forecasting": model.forecasting}
    settings = {name: value for name, value in around.get(kind, {}).items() if name not in facts}
    if kind == "language" and not model.tie:
        settings = {"tie": False, **settings}
    settings |= own or {}
    known = {**facts, **settings}
    sizes = grid(kind, known, details) if kind == "vision" else None
    return {"backbone": model.stack(d_model, depth, sizes, variates(kind, known)), **settings}
