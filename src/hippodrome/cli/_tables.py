"""A table as the verbs for series take it: a data frame whose faults are told before anything is computed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hippodrome.cli._options import typed
from hippodrome.cli._output import as_json, table

if TYPE_CHECKING:
    import pandas


def frame_of(path: Path) -> "pandas.DataFrame":
    """The table with its cells as they stand: text where it is CSV.

    Raises:
        ValueError: there is no such file, or no table in it.
    """
    import pandas

    from hippodrome.data._table import read_csv, read_parquet

    if not path.is_file():
        raise ValueError(f"there is no table {str(path)!r}. Name a CSV or Parquet file")
    if path.suffix == ".parquet":
        read_parquet(path)
        return pandas.read_parquet(path)
    return pandas.DataFrame({name: list(cells) for name, cells in read_csv(path).columns.items()})


def results_folder(path: Path | None, source: Path, word: str) -> Path:
    """Where a verb writes: the folder named, or one named after the table, in the working folder.

    Raises:
        ValueError: something is there already, or no folder can be made there.
    """
    from hippodrome.train.checkpoint import check_folder

    folder = Path(f"{source.name.split('.')[0]}-{word}") if path is None else path
    check_folder(folder)
    return folder


def refuse_beside_run(*kept: str) -> None:
    """Refuse what was typed of training beside --run, whose model has learned already.

    Args:
        kept: options that go with a run.

    Raises:
        ValueError: another one was given.
    """
    for option in typed() - {"--run", *(f"--{name}" for name in kept)}:
        raise ValueError(f"{option} is for training, and --run names a trained model: leave one out")


def told(values: dict[str, Any], title: str, columns: list[str], rows: list[list[Any]], json: bool) -> None:
    """One JSON value, or a table for people."""
    if json:
        as_json(values)
    else:
        table(title, columns, rows, named=True)
