"""Labelled sequences made into a classification task: stratified parts, padding, train statistics."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hippodrome.data.base import GIVEN_STEPS, Task, fault, mixed
from hippodrome.shapes import LabelledBatch


class LabelledItem(NamedTuple):
    """One sequence, values (t, c) or token ids (t,), its class by index, and its time steps (t,) if any."""

    inputs: Tensor
    label: int
    dt: Tensor | None = None


class LabelledSequences(Dataset):
    """Sequences of any length with one class each.

    Args:
        read: what gives sequence i, as an array of values (t, c) or of token ids (t,).
        labels: index of the class of each sequence.
        chosen: which of them this part holds.
        steps: what gives the time steps (t,) of sequence i; None where all are one.
    """

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        labels: np.ndarray,
        chosen: np.ndarray,
        steps: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self.read, self.labels, self.chosen, self.steps = read, labels, chosen, steps

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> LabelledItem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(self.chosen[index])
        array = self.read(which)
        kind = np.int64 if array.ndim == 1 else np.float32
        dt = None if self.steps is None else torch.from_numpy(self.steps(which).astype(np.float32))
        return LabelledItem(torch.from_numpy(array.astype(kind)), int(self.labels[which]), dt)


class PairItem(NamedTuple):
    """Two token sequences (t,) of any lengths and the class of the pair by index."""

    first: Tensor
    second: Tensor
    label: int


class LabelledPairs(Dataset):
    """Pairs of token sequences with one class each.

    Args:
        read: what gives both arrays of token ids of pair i.
        labels: index of the class of each pair.
        chosen: which of them this part holds.
    """

    def __init__(
        self, read: Callable[[int], tuple[np.ndarray, np.ndarray]], labels: np.ndarray, chosen: np.ndarray
    ) -> None:
        self.read, self.labels, self.chosen = read, labels, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> PairItem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(self.chosen[index])
        first, second = (torch.from_numpy(array.astype(np.int64)) for array in self.read(which))
        return PairItem(first, second, int(self.labels[which]))


def collate_pairs(items: list[PairItem]) -> LabelledBatch:
    """Pairs to a batch whose rows 2i and 2i + 1 are pair i: inputs (2b, t), lengths (2b,), labels (b,)."""
    rows = [row for item in items for row in (item.first, item.second)]
    labels = torch.tensor([item.label for item in items])
    inputs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return LabelledBatch(inputs, torch.tensor([len(row) for row in rows]), labels)


def keeping(read: Callable[[int], np.ndarray], most: int) -> Callable[[int], np.ndarray]:
    """``read``, whose arrays are kept in memory up to so many bytes."""
    kept: dict[int, np.ndarray] = {}
    room = [most]

    def once(index: int) -> np.ndarray:
        found = kept.get(index)
        if found is None:
            found = read(index)
            if room[0] >= found.nbytes:
                kept[index] = found
                room[0] -= found.nbytes
        return found

    return once


def collate(items: list[LabelledItem]) -> LabelledBatch:
    """Sequences to a batch (b, t, c) or (b, t), zeros (steps of one) behind the end of the shorter ones."""
    inputs = torch.nn.utils.rnn.pad_sequence([item.inputs for item in items], batch_first=True)
    lengths = torch.tensor([len(item.inputs) for item in items])
    known = [item.dt for item in items if item.dt is not None]
    dt = torch.nn.utils.rnn.pad_sequence(known, batch_first=True, padding_value=1.0) if known else None
    return LabelledBatch(inputs, lengths, torch.tensor([item.label for item in items]), dt)


def stratified(
    labels: np.ndarray, chosen: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """``chosen`` in two: what stays, and about ``share`` of each class; the same for the same seed.

    A class of two or more gives at least one and keeps at least one; a class of one keeps it.
    """
    keep, cut = [], []
    for label in np.unique(labels[chosen]):
        members = chosen[labels[chosen] == label]
        order = sorted(range(len(members)), key=lambda i: mixed(seed, int(members[i])))
        count = min(max(1, round(share * len(members))), len(members) - 1)
        cut.extend(members[order[:count]])
        keep.extend(members[order[count:]])
    return np.sort(np.array(keep, dtype=np.int64)), np.sort(np.array(cut, dtype=np.int64))


def fewer(labels: np.ndarray, chosen: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    """About ``count`` of ``chosen``, the same share of each class; all of them for None.

    Raises:
        ValueError: a count below one.
    """
    if count is None or count >= len(chosen):
        return chosen
    if count < 1:
        raise ValueError(f"the count of train sequences is 1 or more; got {count}. Leave it out for all.")
    return stratified(labels, chosen, 1 - count / len(chosen), seed + 2)[0]


class Folder(NamedTuple):
    """The files of a folder with a subfolder a class, and which of them train, validate and test."""

    files: list[Path]
    classes: list[str]
    labels: np.ndarray
    parts: tuple[np.ndarray, np.ndarray, np.ndarray]


def folder_by_class(
    path: Path,
    inside: Callable[[Path], list[Path]],
    what: str,
    count: int | None,
    valid: float,
    seed: int,
) -> Folder:
    """The files that ``inside`` finds below ``folder/train`` and its like, or below the folder itself.

    ``train``, ``test`` and, if wanted, ``valid`` are taken as they are; without them 20 % of each class test.
    ``count`` train files are kept, the same share of each class, and ``valid`` of those validate where there
    is no such folder.

    Raises:
        ValueError: there are none.
    """
    names = ("train", "valid", "test")
    split = [name for name in names if (path / name).is_dir()]
    ready = "train" in split and "test" in split
    roots = {name: path / name for name in split} if ready else {"train": path}
    found = [(file, name) for name, root in roots.items() for file in inside(root)]
    if not found:
        raise fault(path, f"{what} in a subfolder a class", "none", "Name such a folder.")
    files = [file for file, _ in found]
    classes = sorted({file.parent.name for file in files})
    labels = np.array([classes.index(file.parent.name) for file in files])
    everything, part = np.arange(len(files)), np.array([name for _, name in found])
    if ready:
        first, second, last = (everything[part == name] for name in names)
    else:
        first, last = stratified(labels, everything, 0.2, seed + 1)
        second = np.array([], dtype=np.int64)
    first = fewer(labels, first, count, seed)
    if not len(second):
        first, second = stratified(labels, first, valid, seed)
    return Folder(files, classes, labels, (first, second, last))


def labelled_task(
    read: Callable[[int], Any],
    labels: np.ndarray,
    parts: Sequence[np.ndarray],
    classes: list[str],
    name: str,
    where: str,
    details: dict[str, Any],
    *,
    lengths: np.ndarray,
    vocab_size: int | None = None,
    tokenizer: Any = None,
    statistics_from: int | None = None,
    statistics: tuple[list[float], list[float]] | None = None,
    steps: Callable[[int], np.ndarray] | None = None,
    pairs: bool = False,
) -> Task:
    """The task of labelled sequences whose parts are known.

    Args:
        read: what gives sequence i; both token sequences of pair i where there are ``pairs``.
        labels: index of the class of each.
        parts: indices of train, validation and test.
        classes: names in the order of the indices.
        name: of the task.
        where: for errors.
        details: for the report; counts are added.
        lengths: steps of each sequence.
        vocab_size: for tokens; None for values.
        tokenizer: for tokens.
        statistics_from: how many train sequences the mean and deviation are taken from; None for all.
        statistics: mean and deviation of each channel, where the reader knows better than one by one.
        steps: what gives the time steps of sequence i; None where all are one.
        pairs: whether a label is of two token sequences.

    Raises:
        ValueError: fewer than two classes, or an empty part.
    """
    if len(classes) < 2:
        raise ValueError(
            f"{where}: a classification needs two classes at least; there is {', '.join(classes) or 'none'}. "
            f"Check where the labels come from."
        )
    for words, part in zip(("train", "validation", "test"), parts, strict=True):
        if not len(part):
            raise ValueError(
                f"{where}: the {words} part is empty: {len(labels)} sequences of {len(classes)} classes are "
                f"too few to cut it from. Give three sequences or more of each class."
            )
    facts: dict[str, Any] = {"classes": classes}
    if statistics is not None:
        location, scale = statistics
        facts |= {"channels": len(location), "location": location, "scale": scale}
    elif vocab_size is None:
        taken = parts[0] if statistics_from is None else parts[0][:: -(-len(parts[0]) // statistics_from)]
        location, scale, missing = _statistics(read, taken)
        facts |= {"channels": len(location), "location": location, "scale": scale}
        details = {**details, "missing in train": missing}
        if len(taken) < len(parts[0]):
            details["mean and deviation from"] = f"{len(taken)} of {len(parts[0])} train sequences"
    else:
        facts["vocab_size"] = vocab_size
    details = {
        **details,
        "sequences": dict(zip(("train", "valid", "test"), map(len, parts), strict=True)),
        "steps": {"least": int(lengths.min()), "most": int(lengths.max()), "mean": float(lengths.mean())},
        "per class in train": dict(
            zip(classes, np.bincount(labels[parts[0]], minlength=len(classes)).tolist(), strict=True)
        ),
    }
    if steps is not None:
        details["time steps"] = GIVEN_STEPS
    if pairs:
        facts["pairs"] = True
    sets: list[Dataset] = [
        LabelledPairs(read, labels, part) if pairs else LabelledSequences(read, labels, part, steps)
        for part in parts
    ]
    return Task(
        kind="classification",
        name=name,
        train=sets[0],
        valid=sets[1],
        test=sets[2],
        collate=collate_pairs if pairs else collate,
        facts=facts,
        tokenizer=tokenizer,
        details=details,
        naive=lambda: {"majority class": _majority(labels[parts[0]], labels[parts[2]], len(classes))},
    )


def _majority(train: np.ndarray, test: np.ndarray, classes: int) -> dict[str, float]:
    """Accuracy of the most frequent train class, and nats of the train frequencies (one added to each)."""
    counts = np.bincount(train, minlength=classes) + 1.0
    nats = -np.log(counts / counts.sum())
    return {"accuracy": float((test == counts.argmax()).mean()), "nats": float(nats[test].mean())}


def _statistics(
    read: Callable[[int], np.ndarray], chosen: np.ndarray
) -> tuple[list[float], list[float], int]:
    """Mean and deviation of each channel over all steps, and how many values were missing."""
    values = np.concatenate([read(int(i)) for i in chosen]).astype(np.float64)
    seen = ~np.isnan(values)
    count = np.maximum(seen.sum(0), 1)
    mean = np.where(seen, values, 0.0).sum(0) / count
    deviation = np.sqrt(np.where(seen, values - mean, 0.0).__pow__(2).sum(0) / count)
    return mean.tolist(), deviation.tolist(), int((~seen).sum())
