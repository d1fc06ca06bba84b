"""NumPy archives (``.npz``): sequences with labels or targets, or one series, by the names of their arrays.

For classification: ``inputs`` (n, t, c) or (n, t) of real numbers, or (n, t) of whole numbers, which are
token ids, or images: bytes (uint8) of (n, height, width) or (n, height, width, colours). ``labels`` (n,) of
numbers or text; where rows are shorter than t, ``lengths`` (n,); where time steps differ, ``dt`` (n, t),
positive. Optionally ``split`` (n,) of "train", "valid" and "test"; without it 20 % of each class test and
20 % of the rest validate. ``x_train``, ``y_train``, ``x_test``, ``y_test`` stand for inputs, labels, split.

For regression: ``inputs`` (n, t, c) and ``targets`` (n, t, o), NaN where nothing is asked; ``dt`` and
``split`` as above. For forecasting: ``values`` (t, c) or (t,), NaN where a value is missing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from hippodrome.data._aligned import aligned_task
from hippodrome.data._images import greyed, image_task
from hippodrome.data._labelled import fewer, labelled_task, stratified
from hippodrome.data._series import Series, borders, series_task
from hippodrome.data.base import Task, fault

_KEYS = "'inputs' and 'labels' (and 'lengths', 'dt', 'split'), 'inputs' and 'targets', or 'values'"
_APART = ("x_train", "y_train", "x_test", "y_test")


def open_npz(
    path: str | Path,
    *,
    look_back: int = 96,
    horizon: int = 96,
    split: str | tuple[float, float, float] = (0.7, 0.1, 0.2),
    season: int = 1,
    valid: float = 0.2,
    seed: int = 0,
    order: str = "rows",
    permute: int | None = None,
    grey: bool = False,
    count: int | None = None,
    deltas: bool = False,
) -> Task:
    """The task in an archive: forecasting of ``values``, regression to ``targets``, or classification.

    Args:
        path: the archive.
        look_back: steps of the past a forecast reads.
        horizon: steps to forecast.
        split: of a series, as in tables.
        season: steps of a season of a series.
        valid: share of the train sequences to validate on.
        seed: of the cuts.
        order: "rows" (a token is a row) or "pixels", of images.
        permute: seed of one order of the tokens for all images; None keeps theirs.
        grey: whether colours of images are made grey.
        count: how many train sequences to keep, the same share of each class; None for all.
        deltas: whether each input's change since the step before is read beside it, in a regression.

    Raises:
        ValueError: not such an archive, arrays missing or of sizes that do not fit, infinite values, or time
            steps that are not above zero.
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
    arrays = _joined(path, arrays)
    _needed(path, arrays, "inputs")
    if "targets" not in arrays:
        _needed(path, arrays, "labels")
        if arrays["inputs"].dtype == np.uint8 and arrays["inputs"].ndim > 2 and "lengths" not in arrays:
            return _images(path, arrays, order, permute, grey, count, valid, seed)
    if order != "rows" or permute is not None or grey:
        raise fault(
            path,
            "images for data.order and data.permute or data.grey: 'inputs' of uint8, (n, height, width[, c])",
            _said(arrays["inputs"]),
            "Store the images so, or leave the options out.",
        )
    if "targets" in arrays:
        return _aligned(path, arrays, count, valid, seed, deltas)
    return _labelled(path, arrays, count, valid, seed)


def _needed(path: Path, arrays: Mapping[str, np.ndarray], key: str) -> None:
    if key not in arrays:
        raise fault(path, f"arrays {_KEYS}", ", ".join(map(repr, arrays)) or "none", "Rename or add them.")


def _joined(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Train and test under names of their own as inputs, labels and split."""
    if "x_train" not in arrays:
        return arrays
    for key in _APART:
        _needed(path, arrays, key)
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise fault(
            path, f"'x_test' like 'x_train', {_said(arrays['x_train'])}", _said(arrays["x_test"]),
            "Store arrays of one data set.",
        )  # fmt: skip
    inputs, labels = (np.concatenate([arrays[f"{one}_train"], arrays[f"{one}_test"]]) for one in "xy")
    split = np.repeat(["train", "test"], [len(arrays["x_train"]), len(arrays["x_test"])])
    rest = {key: array for key, array in arrays.items() if key not in _APART}
    return {**rest, "inputs": inputs, "labels": labels, "split": split}


def _images(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    order: str,
    permute: int | None,
    grey: bool,
    count: int | None,
    valid: float,
    seed: int,
) -> Task:
    inputs, names = arrays["inputs"], arrays["labels"]
    if inputs.ndim not in (3, 4) or not inputs.size:
        raise fault(
            path, "images of shape (n, height, width) or (n, height, width, colours)", _said(inputs),
            "Store them so.",
        )  # fmt: skip
    names = _names(path, inputs, names)
    classes, labels = np.unique(names, return_inverse=True)
    return image_task(
        greyed(inputs) if grey else inputs,
        labels,
        _parts(path, arrays.get("split"), labels, valid, seed, count),
        [str(name) for name in classes],
        path.stem,
        str(path),
        {"source": str(path)},
        order=order,
        permute=permute,
    )


def _names(path: Path, inputs: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Labels (n,); (n, 1) as some archives keep them is taken too."""
    names = names[:, 0] if names.ndim == 2 and names.shape[1] == 1 else names
    if names.shape != inputs.shape[:1]:
        raise fault(path, f"'labels' of shape ({len(inputs)},), one a row", _said(names), "Store it so.")
    return names


def _steps(path: Path, arrays: Mapping[str, np.ndarray], lengths: np.ndarray | None) -> np.ndarray | None:
    """Time steps (n, t), checked as far as each row is valid."""
    if "dt" not in arrays:
        return None
    dt, shape = arrays["dt"], arrays["inputs"].shape[:2]
    if dt.shape != shape or dt.dtype.kind not in "iuf":
        raise fault(path, f"'dt' of shape {shape}, real numbers", _said(dt), "Store one step a token.")
    bad = ~(np.isfinite(dt) & (dt > 0))
    if lengths is not None:
        bad &= np.arange(shape[1]) < lengths[:, None]
    wrong = np.argwhere(bad)
    if len(wrong):
        raise fault(
            path, "time steps that are finite and above 0", str(dt[tuple(wrong[0])]),
            "Correct the step, or drop the token.", row=int(wrong[0][0]) + 1, column=f"dt, {wrong[0][1]}",
        )  # fmt: skip
    return dt


def _aligned(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    count: int | None,
    valid: float,
    seed: int,
    deltas: bool,
) -> Task:
    inputs, targets = (
        array[..., None] if array.ndim == 2 else array for array in (arrays["inputs"], arrays["targets"])
    )
    for key, array in (("inputs", inputs), ("targets", targets)):
        if array.ndim != 3 or array.dtype.kind not in "iuf" or not array.size:
            raise fault(path, f"{key!r} of shape (n, t, c), real numbers", _said(arrays[key]), "Store it so.")
        _finite(path, array)
    if inputs.shape[:2] != targets.shape[:2]:
        raise fault(
            path, f"'targets' of shape {(*inputs.shape[:2], 'o')}", _said(arrays["targets"]),
            "Store one row of targets for each token.",
        )  # fmt: skip
    one_class = np.zeros(len(inputs), dtype=np.int64)
    return aligned_task(
        inputs,
        targets,
        _steps(path, arrays, None),
        _parts(path, arrays.get("split"), one_class, valid, seed, count),
        path.stem,
        str(path),
        {"source": str(path)},
        deltas=deltas,
    )


def _labelled(
    path: Path, arrays: Mapping[str, np.ndarray], count: int | None, valid: float, seed: int
) -> Task:
    inputs, names = arrays["inputs"], arrays["labels"]
    if inputs.ndim not in (2, 3) or inputs.dtype.kind not in "iuf" or not inputs.size:
        raise fault(
            path, "'inputs' of shape (n, t, c) or (n, t), real numbers", _said(inputs), "Store it so."
        )
    names = _names(path, inputs, names)
    lengths = arrays.get("lengths", np.full(len(inputs), inputs.shape[1])).astype(np.int64)
    if lengths.shape != names.shape:
        raise fault(path, f"'lengths' of shape ({len(inputs)},)", _said(lengths), "Store it so.")
    wrong = np.flatnonzero((lengths < 1) | (lengths > inputs.shape[1]))
    if len(wrong):
        raise fault(
            path, f"a length from 1 to {inputs.shape[1]}", str(lengths[wrong[0]]), "Correct it.",
            row=int(wrong[0]) + 1, column="lengths",
        )  # fmt: skip
    dt = _steps(path, arrays, lengths)
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
        _parts(path, arrays.get("split"), labels, valid, seed, count),
        [str(name) for name in classes],
        path.stem,
        str(path),
        {"source": str(path)},
        lengths=lengths,
        steps=None if dt is None else lambda i: dt[i, : lengths[i]],
        vocab_size=int(inputs.max()) + 1 if tokens else None,
    )


def _parts(
    path: Path, split: np.ndarray | None, labels: np.ndarray, valid: float, seed: int, count: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    everything = np.arange(len(labels))
    if split is None:
        rest, test = stratified(labels, everything, 0.2, seed + 1)
        return *stratified(labels, fewer(labels, rest, count, seed), valid, seed), test
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
    train = fewer(labels, train, count, seed)
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
