"""How verbs print: tables for people, one JSON value for programs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer


def as_json(value: Any) -> None:
    """One JSON value on stdout. What is not JSON is turned into text; a number that is none becomes null."""
    typer.echo(json.dumps(_plain(value), indent=2, default=str))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, named: bool = False
) -> None:
    """A table on stdout as wide as the terminal; plain lines with tabs where stdout is no terminal, with the
    names of the columns above them if ``named``."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        for row in [columns, *rows] if named else rows:
            typer.echo("\t".join(str(cell) for cell in row))
        return
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        shown.add_column(column, overflow="fold", no_wrap=i == 0)
    for row in rows:
        shown.add_row(*(Text(str(cell)) for cell in row))
    console.print(shown)


def count(number: int | float) -> str:
    """A number with a unit prefix: 1234567 as 1.23 M."""
    for factor, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:.3g}"


def size(number: int | float) -> str:
    """Bytes in powers of 1024: 1536 as 1.5 KiB."""
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if abs(number) >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:.0f} B"
