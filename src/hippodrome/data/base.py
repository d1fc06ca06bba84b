"""What every reader hands out: three data sets, how to batch them, and the facts a model needs."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from torch.utils.data import Dataset

from hippodrome.shapes import Batch

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from hippodrome.text.folder import Words

Kind = Literal[
    "language",
    "masked_language",
    "encoder",
    "classification",
    "regression",
    "forecasting",
    "imputation",
    "video",
    "vision",
    "pretraining",
]


GIVEN_STEPS = "in the data; a model without continuous time reads the values alone"
"""What a report says of data that comes with its time steps."""


class Task(NamedTuple):
    """A source of data made ready: what to train on, what to choose by, what to report.

    ``train``, ``valid`` and ``test`` are map-style data sets without state: item i is always the same, so a
    run that resumes in mid-epoch sees what an uninterrupted one would have seen. A data set whose ``renewed``
    is True shows something new on each visit: item i of visit v stands at v * len + i. ``collate`` turns a
    list of items into a batch. ``facts`` are keyword arguments of the model's constructor that only the data
    can know. ``details`` go into the report. ``naive()`` computes simple baselines on the test set:
    name -> metric -> value. ``words`` say more than ``tokenizer`` of how text is read: what ends it, and the
    chat template.
    """

    kind: Kind
    name: str
    train: Dataset
    valid: Dataset
    test: Dataset
    collate: Callable[[list], Batch]
    facts: dict[str, Any]
    tokenizer: "Tokenizer | None"
    details: dict[str, Any]
    naive: Callable[[], dict[str, dict[str, float]]]
    words: "Words | None" = None


def fault(
    file: str | Path,
    expected: str,
    came: str,
    remedy: str,
    *,
    row: int | None = None,
    column: str | None = None,
) -> ValueError:
    """The one-line error of every reader: where, what was expected, what came, what to do.

    ``row`` counts data rows from 1; header lines do not count.
    """
    where = str(file)
    if row is not None:
        where += f", row {row} (data rows from 1, header not counted)"
    if column is not None:
        where += f", column {column!r}"
    return ValueError(f"{where}: expected {expected}; got {came}. {remedy}")


def shown(value: object, limit: int = 40) -> str:
    """A value as it appears in an error: quoted, on one line, cut where it is long."""
    text = str(value)
    return repr(text if len(text) <= limit else text[:limit] + "...")


def mixed(seed: int, index: int) -> int:
    """A 64-bit number that looks random and depends on nothing but its arguments.

    The finalizer of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators",
    figure 15): train items are drawn with it, so that a data set needs no generator whose state to keep.
    """
    mask = (1 << 64) - 1
    z = (seed * 0xD1342543DE82EF95 + (index + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)
