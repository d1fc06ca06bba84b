"""Fields of a configuration file: present, of their type, and where one value alone is built, that one."""

import math
from collections.abc import Iterable, Mapping
from typing import Any


def plain(value: Any) -> Any:
    """A number of a configuration file: transformers spells infinity {"__float__": "Infinity"}."""
    if isinstance(value, Mapping) and set(value) == {"__float__"}:
        return float(value["__float__"])
    return value


def spelled(value: float) -> Any:
    """A number as transformers spells it there."""
    names = {math.inf: "Infinity", -math.inf: "-Infinity"}
    return {"__float__": names[value]} if value in names else value


class Fields:
    """The fields of a ``config.json``, asked for one by one.

    Args:
        config: the file's table.
        family: the family's name, for sentences.
    """

    def __init__(self, config: Mapping[str, Any], family: str) -> None:
        self.config, self.family = config, family

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number, 1 or more."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong(name, "a whole number from 1 on", value)
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A number."""
        value = plain(self._value(name, default))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number", value)
        return float(value)

    def above(self, name: str, default: float | None = None) -> float:
        """A number above zero."""
        value = self.number(name, default)
        if not value > 0:
            raise self._wrong(name, "a number above zero", value)
        return value

    def flag(self, name: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """Text."""
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "text", value)
        return value

    def words(self, name: str, found: Any, known: Iterable[str], count: int | None = None) -> list[str]:
        """``found`` under that name: words of those known, as many as ``count`` or one at least."""
        known = list(known)
        ours = isinstance(found, list) and all(isinstance(x, str) and x in known for x in found)
        if not ours or (not found if count is None else len(found) != count):
            many = "one at least" if count is None else f"one for each of the {count} layers"
            raise self._wrong(name, f"a list of {', '.join(known)}, {many}", found)
        return list(found)

    def get(self, name: str, default: Any = None) -> Any:
        """Whatever stands there; the default where nothing or null does."""
        value = self.config.get(name)
        return default if value is None else value

    def only(self, name: str, *allowed: Any) -> None:
        """Refuse a field that says anything but what is built; the first of ``allowed`` is its default."""
        value = self.config.get(name, allowed[0])
        if value not in allowed:
            listed = " or ".join(repr(v) for v in allowed)
            raise ValueError(
                f"{self.family} checkpoints are read with {name} {listed}; this one's is {value!r}, which is "
                f"not built here"
            )

    def _value(self, name: str, default: Any) -> Any:
        value = self.config.get(name)
        if value is None and default is None:
            raise ValueError(f"config.json of a {self.family} checkpoint has {name}; this one's has not")
        return default if value is None else value

    def _wrong(self, name: str, rule: str, value: Any) -> ValueError:
        return ValueError(f"config.json of a {self.family} checkpoint: {name} is {rule}; got {value!r}")
