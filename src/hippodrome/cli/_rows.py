"""`hippodrome forecast RUN - --stream`: rows of CSV from stdin, a forecast after each."""

import csv
import json as text
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hippodrome.cli._ahead import levels_of, limit, opened, read
from hippodrome.cli._opened import standard_input

if TYPE_CHECKING:
    import pandas


def streamed(
    run: Path,
    *,
    level: str | None,
    every: int | None,
    history: Path | None,
    device: str,
    threads: int | None,
    json: bool,
) -> None:
    """Forecast after each row, or after every so many; ``cutoff`` is the stamp of the row before it."""
    forecaster = opened(run, device)
    limit(threads)
    levels = None if level is None else levels_of(level)
    if forecaster.known:
        raise ValueError(
            f"{run} reads covariates that are known ahead ({', '.join(forecaster.known)}), which a row does "
            "not hold. Use Forecaster.stream in Python, whose forecast takes them"
        )
    rows = _rows()
    if history is None:
        import pandas

        begun = pandas.DataFrame(list(islice(rows, forecaster._network.look_back)))
        if begun.empty:
            raise ValueError("stdin holds no rows. Write a header of columns, then rows of CSV")
    else:
        begun = read(history)
    stream = forecaster.stream(begun)
    header = not json
    for count, row in enumerate(rows, 1):
        stream.update({name: _cell(name, value, stream.reading.time) for name, value in row.items()})
        if count % (every or 1):
            continue
        found = stream.forecast(levels)
        found.insert(0, "cutoff", stream.ticker.last)
        if json:
            typer.echo(text.dumps(_plain(found)))
        else:
            typer.echo(found.to_csv(index=False, header=header), nl=False)
        header = False
        sys.stdout.flush()


def _rows() -> Iterator[dict[str, str]]:
    """Rows of stdin by the names in its first line."""
    lines = _lines()
    names = [name.strip() for name in next(lines, [])]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"stdin: expected a different name for each column; got {twice[0]!r} twice")
    for count, cells in enumerate(lines, 1):
        if not cells:
            continue
        if len(cells) != len(names):
            raise ValueError(
                f"stdin: expected {len(names)} cells as in the header; got {len(cells)} in row {count}"
            )
        yield dict(zip(names, cells, strict=True))


def _lines() -> Iterator[list[str]]:
    """The cells of each line of stdin."""
    try:
        yield from csv.reader(standard_input())
    except UnicodeDecodeError as error:
        raise ValueError(f"stdin: expected text in UTF-8; got bytes that are not ({error.reason})") from None
    except csv.Error as error:
        raise ValueError(f"stdin: expected rows of CSV; got a line that is none ({error})") from None


def _cell(name: str, value: str, clock: str | None) -> Any:
    """A stamp as text, anything else as a number, NaN where it is missing."""
    from hippodrome.data._table import MISSING

    if name in (clock, "unique_id"):
        return value
    if value.strip().lower() in MISSING:
        return float("nan")
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"stdin: expected a number in column {name!r}; got {value!r}") from None


def _plain(found: "pandas.DataFrame") -> dict[str, Any]:
    """One forecast as JSON has it."""
    columns: dict[str, Any] = {}
    for name, values in found.items():
        numbers = values.dtype.kind == "f"
        cells = [v if v == v else None for v in values] if numbers else values.astype(str).tolist()
        columns[str(name)] = cells
    return {**columns, "cutoff": columns["cutoff"][0]}
