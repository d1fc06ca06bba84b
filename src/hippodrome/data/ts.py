"""The ``.ts`` files of the UCR and UEA archives: labelled series of one or many channels, of any length."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hippodrome.data._augment import standardized, with_variety
from hippodrome.data._labelled import labelled_task, stratified
from hippodrome.data._table import is_number
from hippodrome.data.base import Task, fault, shown


class TsFile(NamedTuple):
    """A ``.ts`` file: its cases (t, c), the label of each, and the classes its header names."""

    cases: list[np.ndarray]
    labels: list[str]
    classes: list[str]


def open_ts(
    path: str | Path, *, valid: float = 0.2, normalize: bool = False, augment: float = 0.0, seed: int = 0
) -> Task:
    """A classification task from ``X_TRAIN.ts`` and the ``X_TEST.ts`` beside it.

    Validation is cut from the train file, the same share of each class; the test file is left whole. A file
    of another name has no companion: test (20 % of each class) is cut from it first.

    Args:
        path: either of the two files, or a single one.
        valid: share of the train cases to validate on.
        normalize: whether each case has its own mean and deviation taken away, channel by channel.
        augment: how strongly training cases are warped in time, scaled and jittered, anew each time; 0 for
            not at all, 1 for the usual.
        seed: of the cut and of what is drawn.

    Raises:
        ValueError: a fault in a file, named by file, row and channel, or classes and channels that differ
            between the two.
    """
    path = Path(path)
    if not 0 < valid < 1:
        raise ValueError(f"the share to validate on lies inside (0, 1); got {valid}. Ask for 0.2, say.")
    train_path = path.with_name(path.name.replace("_TEST.ts", "_TRAIN.ts"))
    test_path = path.with_name(path.name.replace("_TRAIN.ts", "_TEST.ts"))
    if train_path != test_path:
        for one in (train_path, test_path):
            if not one.is_file():
                raise ValueError(
                    f"{path}: its companion {one.name} is expected beside it and is not there. Put it there, "
                    f"or rename {path.name} so that train and test are cut from it alone."
                )
        train, test = read_ts(train_path), read_ts(test_path)
        _agree(train, test, test_path)
        cases, names = train.cases + test.cases, train.labels + test.labels
    else:
        train = read_ts(path)
        cases, names = train.cases, train.labels
    labels = np.array([train.classes.index(name) for name in names])
    everything = np.arange(len(cases))
    if train_path != test_path:
        rest, last = everything[: len(train.cases)], everything[len(train.cases) :]
    else:
        rest, last = stratified(labels, everything, 0.2, seed + 1)
    first, second = stratified(labels, rest, valid, seed)
    name = train_path.name.removesuffix(".ts").removesuffix("_TRAIN")
    details: dict[str, Any] = {"source": str(path)}
    details["validation"] = f"{valid:g} of each class of the train cases"
    if normalize:
        cases, details = [standardized(case) for case in cases], {**details, "normalized": True}
    task = labelled_task(
        cases.__getitem__,
        labels,
        (first, second, last),
        train.classes,
        name,
        str(path),
        details,
        lengths=np.array([len(case) for case in cases]),
    )
    return with_variety(task, augment, seed)


def read_ts(path: Path) -> TsFile:
    """One ``.ts`` file. Rows in errors count cases from 1; ``?`` and NaN are missing values.

    Raises:
        ValueError: no ``@data``, no class labels, time stamps, a case whose channels differ in length or
            in number from the first case's, a label the header does not name, a bad value.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise fault(
            path, "text in UTF-8", f"bytes that are not ({error.reason})", "Convert the file."
        ) from None
    header, body = _split(path, lines)
    for word in ("timestamps", "targetlabel"):
        if header.get(word, ["false"])[0].lower() == "true":
            raise fault(
                path, f"@{word} false", "true", "Take a version of the data with plain values and classes."
            )
    declared = header.get("classlabel", ["false"])
    if declared[0].lower() != "true":
        raise fault(path, "@classLabel true and the classes", "none", "Add the line, or take another file.")
    if not body:
        raise fault(path, "cases behind @data", "none", "Name a file that holds data.")
    cases: list[np.ndarray] = []
    labels: list[str] = []
    for row, line in enumerate(body, 1):
        *channels, label = line.split(":")
        if not channels:
            raise fault(
                path, "channels and a class, separated by ':'", shown(line), "Complete the row.", row=row
            )
        if cases and len(channels) != cases[0].shape[1]:
            raise fault(
                path,
                f"{cases[0].shape[1]} channels as in row 1",
                f"{len(channels)}",
                "Complete the row.",
                row=row,
            )
        label = label.strip()
        if declared[1:] and label not in declared[1:]:
            raise fault(
                path, f"one of the classes {', '.join(declared[1:])}", shown(label),
                "Correct the label, or name it behind @classLabel.", row=row,
            )  # fmt: skip
        cases.append(_case(path, row, channels))
        labels.append(label)
    return TsFile(cases, labels, declared[1:] or sorted(set(labels)))


def _split(path: Path, lines: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The header's words by name, and the rows behind ``@data``."""
    header: dict[str, list[str]] = {}
    for number, line in enumerate(lines):
        text = line.strip()
        if text.lower().startswith("@data"):
            return header, [
                row for row in map(str.strip, lines[number + 1 :]) if row and not row.startswith("#")
            ]
        if text.startswith("@"):
            word, *rest = text[1:].split() or [""]
            header[word.lower()] = rest or [""]
        elif text and not text.startswith("#"):
            break
    raise fault(
        path,
        "a header of @ lines that ends with @data",
        "none" if lines else "an empty file",
        "Check the file.",
    )


def _case(path: Path, row: int, channels: list[str]) -> np.ndarray:
    values = [_values(path, row, number, text) for number, text in enumerate(channels, 1)]
    for number, one in enumerate(values, 1):
        if len(one) != len(values[0]):
            raise fault(
                path, f"{len(values[0])} steps as in channel 1", f"{len(one)}", "Complete the channel.",
                row=row, column=f"channel {number}",
            )  # fmt: skip
    return np.stack(values, 1)


def _values(path: Path, row: int, number: int, text: str) -> np.ndarray:
    cells = text.split(",")
    try:
        values = np.array(list(map(float, cells)))
    except ValueError:
        for step, cell in enumerate(cells, 1):
            if cell.strip() != "?" and not is_number(cell):
                raise fault(
                    path, "a number, or ? where it is missing", shown(cell), "Correct the value.",
                    row=row, column=f"channel {number}, step {step}",
                ) from None  # fmt: skip
        values = np.array([float("nan") if cell.strip() == "?" else float(cell) for cell in cells])
    if np.isinf(values).any():
        step = int(np.flatnonzero(np.isinf(values))[0])
        raise fault(
            path, "a finite number", shown(cells[step]), "Correct the value, or put ?.",
            row=row, column=f"channel {number}, step {step + 1}",
        )  # fmt: skip
    return values


def _agree(train: TsFile, test: TsFile, test_path: Path) -> None:
    ours, theirs = train.cases[0].shape[1], test.cases[0].shape[1]
    if ours != theirs:
        raise fault(
            test_path, f"{ours} channels as in the train file", f"{theirs}", "Take two files of one data set."
        )
    for row, label in enumerate(test.labels, 1):
        if label not in train.classes:
            raise fault(
                test_path, f"one of the train classes {', '.join(train.classes)}", shown(label),
                "Take two files of one data set.", row=row,
            )  # fmt: skip
