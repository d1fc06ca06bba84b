"""NumPy archives (``.npz``): labelled sequences, or one series to forecast, by the names of their arrays.

For classification: ``inputs`` (n, t, c) or (n, t) of real numbers, or (n, t) of whole numbers, which are
token ids; ``labels`` (n,) of numbers or text; where rows are shorter than t, ``lengths`` (n,). Optionally
``split`` (n,) of "train", "valid" and "test"; without it 20 % of each class test and 20 % of the rest
validate. For forecasting: ``values`` (t, c) or (t,), NaN where a value is missing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from hippodrome.data._labelled import labelled_task, stratified
from hippodrome.data._series import Series, borders, series_task
from hippodrome.data.base import Task, fault

_KEYS = "'inputs' and 'labels' (and 'lengths', 'split'), or 'values'"


def open_npz(
    path: str | Path,
    *,
    look_back: int = 96,
    horizon: int = 96,
    split: str | tuple[float, float, float] = (0.7, 0.1, 0.2),
    season: int = 1,
    valid: float = 0.2,
    seed: int = 0,
) -> Task:
    """The task in an archive: classification if it holds ``inputs``, forecasting if it holds ``values``.

    Args:
        path: the archive.
        look_back: steps of the past a forecast reads.
        horizon: steps to forecast.
        split: of a series, as in tables.
        season: steps of a season of a series.
        valid: share of the train sequences to validate on.
        seed: of the cuts.

    Raises:
        ValueError: not such an archive, arrays missing or of sizes that do not fit, or infinite values.
    """
    path = Path(path)
    arrays = _read(path)
    if "values" in arrays:
        values = arrays["values"]
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or values.dtype.kind not in "iuf" or not values.size:
            raise fault(
                path,
                "'values' of shape (t, c) or (t,), real numbers",
                _said(arrays["values"]),
                "Store it so.",
            )
        _finite(path, values)
        series = Series(path.stem, values.astype(np.float64), borders(len(values), split, str(path)))
        words = split if isinstance(split, str) else "/".join(f"{part:g}" for part in split)
        details = {"source": str(path), "rows": len(values), "sampling": "rows, no stamps", "split": words}
        return series_task(
            [series], path.stem, str(path), details, look_back=look_back, horizon=horizon, season=season
        )
    return _labelled(path, arrays, valid, seed)


def _labelled(path: Path, arrays: Mapping[str, np.ndarray], valid: float, seed: int) -> Task:
    for key in ("inputs", "labels"):
        if key not in arrays:
            raise fault(
                path, f"arrays {_KEYS}", ", ".join(map(repr, arrays)) or "none", "Rename or add them."
            )
    inputs, names = arrays["inputs"], arrays["labels"]
    if inputs.ndim not in (2, 3) or inputs.dtype.kind not in "iuf" or not inputs.size:
        raise fault(
            path, "'inputs' of shape (n, t, c) or (n, t), real numbers", _said(inputs), "Store it so."
        )
    if names.shape != inputs.shape[:1]:
        raise fault(path, f"'labels' of shape ({len(inputs)},), one a row", _said(names), "Store it so.")
    lengths = arrays.get("lengths", np.full(len(inputs), inputs.shape[1])).astype(np.int64)
    if lengths.shape != names.shape:
        raise fault(path, f"'lengths' of shape ({len(inputs)},)", _said(lengths), "Store it so.")
    wrong = np.flatnonzero((lengths < 1) | (lengths > inputs.shape[1]))
    if len(wrong):
        raise fault(
            path, f"a length from 1 to {inputs.shape[1]}", str(lengths[wrong[0]]), "Correct it.",
            row=int(wrong[0]) + 1, column="lengths",
        )  # fmt: skip
    tokens = inputs.ndim == 2 and inputs.dtype.kind in "iu"
    if tokens and int(inputs.min()) < 0:
        raise fault(
            path, "token ids of 0 or more in 'inputs'", str(inputs.min()), "Shift them, or store floats."
        )
    if not tokens:
        inputs = inputs[..., None] if inputs.ndim == 2 else inputs
        _finite(path, inputs)
    classes, labels = np.unique(names, return_inverse=True)
    return labelled_task(
        lambda i: inputs[i, : lengths[i]],
        labels,
        _parts(path, arrays.get("split"), labels, valid, seed),
        [str(name) for name in classes],
        path.stem,
        str(path),
        {"source": str(path)},
        lengths=lengths,
        vocab_size=int(inputs.max()) + 1 if tokens else None,
    )


def _parts(
    path: Path, split: np.ndarray | None, labels: np.ndarray, valid: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    everything = np.arange(len(labels))
    if split is None:
        rest, test = stratified(labels, everything, 0.2, seed + 1)
        return *stratified(labels, rest, valid, seed), test
    words = split.astype(str)
    if words.shape != labels.shape:
        raise fault(path, f"'split' of shape ({len(labels)},)", _said(split), "Store one word a row.")
    wrong = np.flatnonzero(~np.isin(words, ("train", "valid", "test")))
    if len(wrong):
        raise fault(
            path, "'train', 'valid' or 'test'", repr(str(words[wrong[0]])), "Correct it.",
            row=int(wrong[0]) + 1, column="split",
        )  # fmt: skip
    train, held, test = (everything[words == word] for word in ("train", "valid", "test"))
    if not len(held):
        train, held = stratified(labels, train, valid, seed)
    return train, held, test


def _read(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (ValueError, OSError, BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise fault(
            path, f"an archive of plain arrays {_KEYS}", f"one that cannot be read ({reason})",
            "Write it with numpy.savez, without Python objects.",
        ) from None  # fmt: skip


def _finite(path: Path, values: np.ndarray) -> None:
    wrong = np.argwhere(np.isinf(values))
    if len(wrong):
        place = ", ".join(str(index) for index in wrong[0][1:])
        raise fault(
            path, "finite numbers, or NaN where one is missing", str(values[tuple(wrong[0])]), "Correct it.",
            row=int(wrong[0][0]) + 1, column=place,
        )  # fmt: skip


def _said(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
