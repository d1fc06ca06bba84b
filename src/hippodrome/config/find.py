"""Which kinds there are: a family is a folder, a kind is a file in it, found by looking there."""

import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable

from hippodrome.backbones import MIXERS

FAMILIES = ("layers", "mixers", "backbones", "models")
"""The folders whose files are kinds, in the order in which they build on each other."""


def kinds(family: str) -> list[str]:
    """The kinds of a family, sorted: its files, less ``base.py`` and those that start with an underscore.

    The folder is read, nothing is imported. ``family`` is one of ``FAMILIES``; any other raises ValueError.
    """
    if family not in FAMILIES:
        raise ValueError(f"there is no family {family!r}{suggest(family, FAMILIES)}")
    spec = importlib.util.find_spec(f"hippodrome.{family}")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return sorted(
        name for _, name, _ in pkgutil.iter_modules(folders) if name != "base" and not name.startswith("_")
    )


def choices(family: str) -> list[str]:
    """The kinds that stand where a module of a family may: beside a mixer, the backbones that are mixers."""
    return sorted([*kinds(family), *MIXERS]) if family == "mixers" else kinds(family)


def find(family: str, kind: str) -> type:
    """The class of a kind: the one public module class that the kind's file declares.

    Among mixers a backbone that is one is found too.

    Where a file declares several, the one named like the file (``mlp.py``: ``GatedMLP``). Raises ValueError
    for an unknown kind, with the nearest name there is.
    """
    known = choices(family)
    if kind not in known:
        raise ValueError(f"there is no kind {kind!r} in {family}{suggest(kind, known)}")
    return _declared("backbones" if family == "mixers" and kind in MIXERS else family, kind)


def _declared(family: str, kind: str) -> type:
    from torch import nn

    module = importlib.import_module(f"hippodrome.{family}.{kind}")
    declared = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]
    if len(declared) > 1:
        named = [c for c in declared if c.__name__.lower() == kind.replace("_", "")]
        declared = named or [c for c in declared if c.__name__.lower().endswith(kind.replace("_", ""))]
    if len(declared) != 1:
        found = ", ".join(c.__name__ for c in declared) or "none"
        raise ValueError(
            f"{family}/{kind}.py must declare exactly one public module class, or one named like the file; "
            f"found {found}. Give helpers a leading underscore."
        )
    missing = sorted(getattr(declared[0], "__abstractmethods__", ()))
    if missing:
        raise ValueError(f"{family}/{kind}.py: {declared[0].__name__} still lacks {', '.join(missing)}")
    return declared[0]


def suggest(name: object, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest one there is, else all of them."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there is {', '.join(names)}" if names else "; there are none"
