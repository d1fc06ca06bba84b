"""The recipes there are: a file each under `recipes/`, found by looking and imported on need."""

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules

from hippodrome.config.find import suggest
from hippodrome.config.recipe import Recipe


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
