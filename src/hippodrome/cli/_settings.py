"""Options from a file (`-c file.yaml`) and from assignments (`-s dotted.key=value`), over which flags win."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hippodrome.config.find import suggest

File = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE.yaml", help="Options from a YAML file.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE", help="One option by its dotted key, such as training.lr=1e-3."
    ),
]


class Settings:
    """What file and assignments say; a verb takes from it what it knows, and ``finish`` refuses the rest."""

    def __init__(self, file: Path | None, assignments: Sequence[str] | None) -> None:
        self.values = _from_file(file) if file else {}
        self.known: list[str] = []
        for text in assignments or ():
            _assign(self.values, text)

    def take(self, key: str, flag: Any = None, default: Any = None) -> Any:
        """The flag if it was given, else what is set for ``key``, else the default."""
        self.known.append(key)
        value = self.values.pop(key, None)
        return flag if flag is not None else default if value is None else value

    def section(self, key: str) -> dict[str, Any]:
        """A mapping of further options; empty where nothing is set."""
        value = self.take(key)
        if value is not None and not isinstance(value, dict):
            raise ValueError(f"{key} is a section with options of its own ({key}.name=value); got {value!r}")
        return dict(value or {})

    def finish(self) -> None:
        """Refuse what nobody took."""
        for key in self.values:
            raise ValueError(f"there is no option {key!r}{suggest(key, self.known)}")


def _from_file(file: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected options by name at the top; got a {type(found).__name__}")
    return found


def _assign(values: dict[str, Any], text: str) -> None:
    """Put one ``dotted.key=value`` in its place; the value is YAML, so 3, 0.1, true and [a, b] work."""
    key, sign, value = text.partition("=")
    names = key.strip().split(".")
    if not sign or not all(names):
        raise ValueError(f"-s takes dotted.key=value, such as training.lr=1e-3; got {text!r}")
    for depth, name in enumerate(names[:-1]):
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ValueError(f"-s {text}: {'.'.join(names[: depth + 1])} is already a value, not a section")
    values[names[-1]] = read(value)


def read(text: str) -> Any:
    """A value as YAML reads it, and 1e-3 as the number it means."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
