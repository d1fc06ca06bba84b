"""Tables of labelled text, a line a case with tabs between its columns: one text to a label, or two.

The Long Range Arena (Tay et al. 2020, arXiv 2011.04006) keeps two of its tasks so: ListOps in
``basic_train.tsv`` and its like, with the columns Source and Target, and Retrieval in
``new_aan_pairs.train.tsv`` and its like, with a label, two numbers and two texts a line and no header.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hippodrome.data._labelled import fewer, labelled_task, stratified
from hippodrome.data.base import Task, fault, shown
from hippodrome.data.documents import LENGTH, Reading, check_length, reading_of
from hippodrome.data.listops import TOKENS, listops_tokenizer, parse

PARTS = {"train": "train", "valid": "val|valid|eval|dev", "test": "test"}
"""What the name of a file ends with, before ``.tsv``, by the part that the file is."""

COLUMNS = {2: (0, (1,)), 3: (0, (1, 2)), 5: (0, (3, 4))}
"""Number of columns without a header -> the place of the label, and of the texts."""

SAMPLE = 5000
"""Lengths are counted in so many rows at most."""


class Place(NamedTuple):
    """Where a case stands: the number of its file, the first byte of its line, the number of the line."""

    file: int
    byte: int
    line: int


def open_tsv(
    path: str | Path,
    *,
    length: int = LENGTH,
    tokenizer: str | int = "bytes",
    count: int | None = None,
    valid: float = 0.2,
    seed: int = 0,
    joint: bool = False,
) -> Task:
    """A classification task from a folder of ``.tsv`` files, or from one such file.

    In a folder the names end with train, val (valid, eval, dev) and test; without a validation file it is cut
    from the train part; of one file 20 % of each class test. Columns are Source and Target where a header
    says so, else label and text; label, text, text; or label, two numbers, text, text. Two texts make the
    task one of pairs. Expressions of ListOps are read by their own 15 tokens, their parentheses left out, as
    published. Lines are read from the files when they are asked for.

    Args:
        path: the folder or file.
        length: tokens of a text that are kept, from its start.
        tokenizer: as of documents (bytes, chars, a size, a file); ListOps keeps its own.
        count: how many train cases to keep, the same share of each class; None for all.
        valid: share of the train cases to validate on, where there is no file for that.
        seed: of the cuts.
        joint: whether two texts are read as one sequence, with a token of its own between them, so that the
            reading of either depends on the other; else each alone, by two towers.

    Raises:
        ValueError: files that are absent or ambiguous, ``joint`` where there is one text, or a line with
            another number of columns, an empty column or bytes that are not UTF-8; it names file and line.
    """
    path = Path(path)
    check_length(length, path)
    files = _files(path)
    places: list[Place] = []
    labels: list[str] = []
    columns: list[tuple[int, ...]] = []
    parts: dict[str, list[int]] = {name: [] for name in PARTS}
    for number, (part, file) in enumerate(files.items()):
        found, names, texts_at = _scan(file, number)
        columns.append(texts_at)
        if len(texts_at) != len(columns[0]):
            raise fault(file, f"{len(columns[0])} texts a line as in train", f"{len(texts_at)}", "Check it.")
        parts[part] += range(len(places), len(places) + len(found))
        places += found
        labels += names
    paths = list(files.values())

    def texts(index: int) -> list[str]:
        place = places[index]
        with paths[place.file].open("rb") as file:
            file.seek(place.byte)
            line = file.readline()
        return [_text(column, paths[place.file], place) for column in _columns(line, columns[place.file])]

    pairs = len(columns[0]) == 2
    if joint and not pairs:
        raise fault(path, "two texts a line to read jointly", "one", "Leave joint out.")
    listops = not pairs and _is_listops(texts(0)[0])
    classes = [str(digit) for digit in range(10)] if listops else sorted(set(labels))
    index = {name: i for i, name in enumerate(classes)}
    wrong = next((i for i, name in enumerate(labels) if name not in index), None)
    if wrong is not None:
        where = paths[places[wrong].file]
        raise fault(
            f"{where}, line {places[wrong].line}", "a digit as value", shown(labels[wrong]), "Check it."
        )
    targets = np.array([index[name] for name in labels])
    first, second, last = (np.array(parts[name], dtype=np.int64) for name in PARTS)
    if not len(last):
        first, last = stratified(targets, first, 0.2, seed + 1)
    first = fewer(targets, first, count, seed)
    if not len(second):
        first, second = stratified(targets, first, valid, seed)
    if listops:
        reading = Reading(listops_tokenizer(), _expression, "the 15 tokens of ListOps")
    else:
        reading = reading_of(tokenizer, (text for i in first for text in texts(int(i))))
    chosen, ids, said = reading

    def read(index: int) -> np.ndarray | tuple[np.ndarray, ...]:
        rows = tuple(ids(text)[:length] for text in texts(index))
        if joint:
            between = np.array([chosen.get_vocab_size()])
            return np.concatenate([rows[0], between, rows[1]], dtype=np.int64)
        return rows if len(rows) == 2 else rows[0]

    sample = range(0, len(places), -(-len(places) // SAMPLE))
    lengths = np.array([[len(ids(text)) for text in texts(i)] for i in sample])
    details = {"source": str(path), "tokenizer": said, "longest": f"cut to {length} tokens"}
    if len(sample) < len(places):
        details["steps counted in"] = f"{len(sample)} of {len(places)} rows"
    lengths = np.minimum(lengths, length)
    if joint:
        lengths = lengths.sum(1) + 1
    if pairs:
        details["pairs"] = "two texts a label" + (", read as one sequence" if joint else "")
    return labelled_task(
        read,
        targets,
        (first, second, last),
        classes,
        path.stem,
        str(path),
        details,
        lengths=lengths,
        vocab_size=chosen.get_vocab_size() + joint,
        tokenizer=chosen,
        pairs=pairs and not joint,
    )


def _files(path: Path) -> dict[str, Path]:
    """The file of each part, of a single file the train part alone."""
    if path.is_file():
        return {"train": path}
    found: dict[str, Path] = {}
    for part, words in PARTS.items():
        fit = [file for file in sorted(path.glob("*.tsv")) if re.search(rf"({words})\.tsv$", file.name)]
        if len(fit) > 1:
            raise fault(
                path, f"one .tsv file to {part}", ", ".join(file.name for file in fit), "Name one file."
            )
        if fit:
            found[part] = fit[0]
        elif part != "valid":
            raise fault(path, f"a file that ends with {part}.tsv", "none", "Name one file, or add it.")
    return found


def _scan(file: Path, number: int) -> tuple[list[Place], list[str], tuple[int, ...]]:
    """Where the cases of a file stand, their labels, and the places of the texts among the columns."""
    places: list[Place] = []
    labels: list[str] = []
    columns = label_at = 0
    texts_at: tuple[int, ...] = ()
    with file.open("rb") as lines:
        byte = 0
        for line, raw in enumerate(lines, 1):
            begin, byte = byte, byte + len(raw)
            if not raw.strip():
                continue
            cells = raw.rstrip(b"\r\n").split(b"\t")
            if not columns:
                columns = len(cells)
                names = [cell.strip().lower() for cell in cells]
                if sorted(names) == [b"source", b"target"]:
                    label_at, texts_at = names.index(b"target"), (names.index(b"source"),)
                    continue
                if columns not in COLUMNS:
                    raise fault(
                        f"{file}, line {line}", "a header Source and Target, or 2, 3 or 5 columns",
                        f"{columns}", "Check that tabs separate them.",
                    )  # fmt: skip
                label_at, texts_at = COLUMNS[columns]
            where = f"{file}, line {line}"
            if len(cells) != columns:
                raise fault(where, f"{columns} columns as above", f"{len(cells)}", "Correct the line.")
            if not all(cells[i].strip() for i in (label_at, *texts_at)):
                raise fault(where, "a label and a text", "an empty column", "Remove the line.")
            place = Place(number, begin, line)
            places.append(place)
            labels.append(_text(cells[label_at], file, place).strip())
    if not places:
        raise fault(file, "lines of labelled text", "none", "Name another file.")
    return places, labels, texts_at


def _columns(line: bytes, places: tuple[int, ...]) -> list[bytes]:
    cells = line.rstrip(b"\r\n").split(b"\t")
    return [cells[i] for i in places]


def _text(cell: bytes, file: Path, place: Place) -> str:
    try:
        return cell.decode()
    except UnicodeDecodeError as error:
        raise fault(
            f"{file}, line {place.line}", "text in UTF-8", f"byte 0x{cell[error.start]:02x}", "Convert it."
        ) from None


def _expression(text: str) -> np.ndarray:
    return np.array(parse(text), dtype=np.uint8)


def _is_listops(text: str) -> bool:
    words = text.replace("(", " ").replace(")", " ").split()
    return bool(words) and set(words) <= set(TOKENS)
