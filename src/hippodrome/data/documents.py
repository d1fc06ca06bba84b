"""Folders of text files, a subfolder a class: bytes, characters or byte pairs of a document to a label."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from hippodrome.data._labelled import folder_by_class, labelled_task
from hippodrome.data.base import Task, fault, shown
from hippodrome.data.text import SUFFIXES, choose_tokenizer, encode, is_bytes, read_file

LENGTH = 4096
"""Tokens of a document that are read, as published."""

OFTEN = 15
"""A character that is rarer in the train part has no token of its own, as published."""

UNKNOWN = "\0"
"""Token 0 of a vocabulary of characters: one that is not in it."""


class Reading(NamedTuple):
    """How documents become token ids: the tokenizer, the same as a function, and a word for the report."""

    tokenizer: Tokenizer
    ids: Callable[[str], np.ndarray]
    said: str


def open_documents(
    path: str | Path,
    *,
    length: int = LENGTH,
    tokenizer: str | int = "bytes",
    count: int | None = None,
    valid: float = 0.2,
    seed: int = 0,
) -> Task:
    """A classification task over text files: ``folder/CLASS/*.txt``.

    ``folder/train``, ``folder/test`` and, if wanted, ``folder/valid``, with the classes inside, are taken as
    they are; without them 20 % of each class test. A class that is in ``train`` alone while there is a
    ``test`` is left out (the unlabelled reviews of IMDB, ``train/unsup``). With IMDB's folder, characters and
    4096 of them this is the Text task of the Long Range Arena (Tay et al. 2020, arXiv 2011.04006, section
    2.2.2), but for the validation part, which is cut from the train part here and is the test part there.

    Args:
        path: the folder.
        length: tokens of a document that are kept, from its start.
        tokenizer: "bytes"; "chars", the characters that occur 15 times or more in the train part
            ("chars:N": N times); the size of a vocabulary to learn from the train part; or the path of a
            ``tokenizer.json``.
        count: how many train documents to keep, the same share of each class; None for all.
        valid: share of the train documents to validate on, where there is no ``valid`` folder.
        seed: of the cuts.

    Raises:
        ValueError: no text files, one that is empty or not UTF-8 (it names the file), or a tokenizer that is
            none.
    """
    path = Path(path)
    check_length(length, path)
    left_out = _unlabelled(path)
    found = folder_by_class(
        path,
        lambda folder: [file for file in documents(folder) if file.parent.name not in left_out],
        f"text files ({', '.join(SUFFIXES[:3])} and the like)",
        count,
        valid,
        seed,
    )
    texts = [read_file(file) for file in found.files]
    for file, text in zip(found.files, texts, strict=True):
        if not text:
            raise fault(file, "a text", "an empty one", "Remove it.")
    reading = reading_of(tokenizer, (texts[i] for i in found.parts[0]))
    rows = [reading.ids(text) for text in texts]
    details: dict[str, Any] = {"source": str(path), "tokenizer": reading.said, **cut(rows, length)}
    if left_out:
        details["left out"] = f"{', '.join(left_out)}: in train, but not in test"
    return labelled_task(
        lambda i: rows[i][:length],
        found.labels,
        found.parts,
        found.classes,
        path.name,
        str(path),
        details,
        lengths=np.minimum([len(row) for row in rows], length),
        vocab_size=reading.tokenizer.get_vocab_size(),
        tokenizer=reading.tokenizer,
    )


def documents(folder: Path) -> list[Path]:
    """All text files one subfolder down, in the order of their names."""
    return sorted(file for file in folder.glob("*/*") if file.suffix.lower() in SUFFIXES and file.is_file())


def check_length(length: int, where: str | Path) -> None:
    """Raise ValueError where no token would be left."""
    if length < 1:
        raise ValueError(
            f"{where}: a document keeps one token at least; got length {length}. Take 4096, say."
        )


def cut(rows: Sequence[np.ndarray], length: int) -> dict[str, str]:
    """What a report says of rows that are cut to their first ``length`` tokens; nothing where none is."""
    longer = sum(len(row) > length for row in rows)
    return {"cut": f"{longer} of {len(rows)} to their first {length} tokens"} if longer else {}


def reading_of(choice: str | int, texts: Iterable[str]) -> Reading:
    """The tokenizer of an option, learned from these texts where it is one to be learned.

    Raises:
        ValueError: a choice that is none, or no character that is frequent enough.
    """
    if isinstance(choice, str) and choice.partition(":")[0] == "chars":
        often = choice.partition(":")[2]
        if ":" in choice and not (often.isdigit() and int(often)):
            raise ValueError(
                f"a vocabulary of characters is 'chars', or 'chars:N' with the times N that one must occur; "
                f"got {shown(choice)}. Take 'chars' or 'chars:1'."
            )
        return _characters(texts, int(often) if often else OFTEN)
    learns = isinstance(choice, int) or choice.isdigit()
    chosen = choose_tokenizer(choice, "\n".join(texts) if learns else "")
    tokens = f"{chosen.get_vocab_size()} tokens"
    said = f"byte pairs, {tokens}" if learns else f"that of {choice}, {tokens}"
    said = "bytes" if is_bytes(chosen) else said
    return Reading(chosen, lambda text: encode(chosen, text), said)


def _characters(texts: Iterable[str], often: int) -> Reading:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    kept = sorted(letter for letter, n in counts.items() if n >= often and letter != UNKNOWN)
    if not kept:
        raise ValueError(
            f"a vocabulary of characters holds those that occur {often} times or more in the train part; "
            f"there is none. Take 'chars:1' or 'bytes'."
        )
    tokenizer = Tokenizer(models.WordLevel({UNKNOWN: 0, **{c: i + 1 for i, c in enumerate(kept)}}, UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    points = np.array([ord(letter) for letter in kept], dtype=np.uint32)
    kind = np.uint8 if len(kept) < 2**8 else np.int32

    def ids(text: str) -> np.ndarray:
        letters = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        place = np.minimum(np.searchsorted(points, letters), len(points) - 1)
        return np.where(points[place] == letters, place + 1, 0).astype(kind)

    return Reading(tokenizer, ids, f"{len(kept)} characters that occur {often} times or more, and unknown")


def _unlabelled(path: Path) -> list[str]:
    """Subfolders of ``train`` that ``test`` has not, sorted; none where either is absent."""
    train, test = ({f.name for f in (path / part).glob("*") if f.is_dir()} for part in ("train", "test"))
    return sorted(train - test) if test else []
