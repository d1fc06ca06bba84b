"""From a path or a name to the reader that knows it, and a sentence where none does."""

import difflib
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

from hippodrome.data.base import Kind, Task

BUILT_IN = {
    "python-docs": ("text", "open_python_docs"),
    "listops": ("listops", "open_listops"),
    "seasonal": ("generated", "open_seasonal"),
    "chaotic": ("generated", "open_chaotic"),
    "autoregressive": ("autoregressive", "open_autoregressive"),
    "delay": ("signals", "open_delay"),
    "reconstruction": ("signals", "open_reconstruction"),
    "associative_recall": ("recall", "open_associative_recall"),
    "induction": ("recall", "open_induction"),
    "mqar": ("mqar", "open_mqar"),
    "selective_copying": ("copying", "open_selective_copying"),
    "copying": ("copying", "open_copying"),
    "string_copying": ("copying", "open_string_copying"),
    "phone_book": ("phone_book", "open_phone_book"),
    "passkey": ("haystack", "open_passkey"),
    "needle": ("haystack", "open_needle"),
    "pathfinder": ("pathfinder", "open_pathfinder"),
    "moving-shapes": ("video", "open_moving_shapes"),
    "inertial": ("inertial", "open_inertial"),
    "lorenz": ("dynamics", "open_lorenz"),
    "lotka_volterra": ("dynamics", "open_lotka_volterra"),
    "environments": ("dynamics", "open_environments"),
}
"""Sources that need no download: name -> (file of this folder, function)."""

MASKED = {"python-docs": ("masked", "open_masked_python_docs")}
"""Built-in sources that are read with places to fill in where that kind is asked for."""

READERS: dict[str, tuple[str, str, tuple[Kind, ...]]] = {
    "text": ("text", "open_text", ("language",)),
    "chat": ("chat", "open_chat", ("language",)),
    "masked text": ("masked", "open_masked_text", ("masked_language",)),
    "sequences": ("dna", "open_sequences", ("masked_language",)),
    "neighbours": ("pairs", "open_neighbours", ("encoder",)),
    "pairs": ("pairs", "open_pairs", ("encoder",)),
    "table": ("tables", "open_table", ("forecasting",)),
    "table with holes": ("imputation", "open_imputation", ("imputation",)),
    "ts": ("ts", "open_ts", ("classification",)),
    "npz": ("npz", "open_npz", ("classification", "regression", "forecasting")),
    "wav": ("wav", "open_wav", ("classification",)),
    "audio": ("audio", "open_audio", ("language",)),
    "idx": ("idx", "open_idx", ("classification",)),
    "pictures": ("pictures", "open_pictures", ("classification",)),
    "documents": ("documents", "open_documents", ("classification",)),
    "tsv": ("tsv", "open_tsv", ("classification",)),
    "pathfinder files": ("pathfinder_files", "open_pathfinder_files", ("classification",)),
    "video": ("video", "open_moving", ("video",)),
    "vision": ("vision", "open_vision", ("vision",)),
    "interleaved": ("interleaved", "open_interleaved", ("language",)),
}
"""Readers of paths: name -> (file of this folder, function, kinds of task it makes)."""

BY_SUFFIX = {".csv": "table", ".csv.gz": "table", ".parquet": "table", ".ts": "ts", ".npz": "npz"}
"""What a file's name ends with -> reader; any other file is read as text."""

_OF_TEXT = ("masked_language", "encoder", "language")
"""Kinds of task that any file of text can be read for."""

_LETTERS = (".fasta", ".fa", ".fna", ".faa", ".gb", ".gbk", ".genbank")
"""What the name of a file of DNA or proteins ends with, packed by gzip or not."""

_SOUND = (".wav", ".flac", ".ogg")
"""What the name of a recording ends with. Below a folder of folders they are classes, else a language."""


def open_source(
    source: str | Path,
    *,
    kind: Kind | None = None,
    length: int | None = None,
    tokenizer: str | int | None = None,
    seed: int | None = None,
    look_back: int | None = None,
    horizon: int | None = None,
    split: str | tuple[float, float, float] | None = None,
    season: int | None = None,
    targets: list[str] | None = None,
    time: str | None = None,
    observed: list[str] | None = None,
    known: list[str] | None = None,
    static: list[str] | None = None,
    calendar: bool | None = None,
    irregular: bool | None = None,
    gaps: str | None = None,
    frequencies: str | None = None,
    valid: float | None = None,
    count: int | None = None,
    noise: float | None = None,
    order: str | None = None,
    permute: int | None = None,
    rate: int | None = None,
    seconds: float | None = None,
    lag: int | None = None,
    band: float | None = None,
    vocabulary: int | None = None,
    coefficients: list[float] | None = None,
    quantization: str | None = None,
    contour: int | None = None,
    grey: bool | None = None,
    size: int | None = None,
    objects: int | None = None,
    mask_rate: float | None = None,
    eval_rate: float | None = None,
    span: int | None = None,
    corruption: list[float] | None = None,
    joint: bool | None = None,
    pairs: int | None = None,
    filler: str | None = None,
    exponent: float | None = None,
    segments: str | None = None,
    items: int | None = None,
    shortest: int | None = None,
    entries: int | None = None,
    digits: int | None = None,
    examples: int | None = None,
    question_first: bool | None = None,
    place: float | None = None,
    separator: str | None = None,
    template: str | None = None,
    learn: str | None = None,
    hide: str | None = None,
    normalize: bool | None = None,
    augment: float | None = None,
    deltas: bool | None = None,
) -> Task:
    """The task behind a path or a built-in name. An option left at None takes the reader's own value.

    Args:
        source: a path (text file or folder, ``.csv``, ``.csv.gz``, ``.parquet``, ``.ts``, ``.npz``, folder of
            recordings, of pictures, or of IDX files), or one of the names in ``BUILT_IN``.
        kind: what to make of it, where the path alone leaves a choice: "language" reads recordings as tokens,
            one a sample, pictures and their labels as captions interleaved, and any other file as text,
            "masked_language" a text with places to fill in, "encoder" a text as neighbouring stretches, or
            lines of two texts with a tab (``.tsv``) as pairs,
            "imputation" a table as series with cells to fill in,
        "classification" a folder of text files as documents with a subfolder a class, a file of lines
            with tabs (``.tsv``) as labelled texts, "video" the pictures in an archive or in IDX files as what
            moves in frames, "vision" pictures by class as pictures and not as sequences.
        length: tokens a window (text) or a sequence (delay, reconstruction, tasks of recall and copying), the
            most of a document, frames of a video, or the upper bound of an expression's (listops).
        tokenizer: "bytes", a vocabulary size to learn, or a ``tokenizer.json`` or a folder with one (text);
            of documents also "chars".
        seed: of whatever the source draws.
        look_back: steps of the past that a forecast reads (series).
        horizon: steps to forecast (series).
        split: "ett", "ettm" or fractions such as "0.7/0.1/0.2" (series in files).
        season: steps of a season, for the seasonal naive baseline (series).
        targets: columns to forecast (tables), or quantities to tell (inertial).
        time: the column of stamps (tables).
        observed: columns of covariates that are seen in the past alone (tables).
        known: columns of covariates that are known ahead too (tables).
        static: columns with one value a series (tables).
        calendar: whether features of the calendar are known ahead too (tables).
        irregular: whether steps between rows differ, and are told to the model (tables).
        gaps: "refuse" absent rows, or "fill" rows of missing values in (tables).
        frequencies: "one" step for all series, or "mixed" (tables).
        valid: share of the train sequences to validate on (labelled sequences in files).
        count: how much to generate (listops: expressions; seasonal, chaotic, autoregressive: steps; delay,
            reconstruction, tasks of recall and copying: train sequences), or how many train sequences to keep
            (labelled ones in files).
        noise: size of the noise (chaotic, autoregressive, inertial).
        order: "rows" or "pixels" (images).
        permute: seed of one order of the tokens for all images (images).
        rate: samples a second to read at (recordings), or states a unit of time (dynamical systems).
        seconds: longest piece that is kept (recordings).
        lag: steps of the delay, or of the window to recover (delay, reconstruction).
        band: highest frequency of the noise in cycles a step (delay, reconstruction).
        vocabulary: number of tokens (associative_recall, induction, mqar, tasks of copying).
        coefficients: of the last values, newest first (autoregressive, which else draws ``lag`` of them).
        quantization: "mu-law" or "linear" levels (recordings as a language).
        contour: dashes of a marked contour (pathfinder).
        grey: whether colours are made grey (pictures, archives of images).
        size: pixels of a side (pathfinder), rows and columns of a frame (moving pictures) or that
            a picture is shrunk to (pictures as a language).
        objects: pictures that move in each video (moving pictures).
        mask_rate: share of the places to fill in, in training (masked language).
        eval_rate: the same in validation and test (masked language).
        span: places to fill in that stand together (masked language).
        corruption: of the places to fill in, the shares that read as hidden, as any token, and as they are
            (masked language).
        joint: whether two texts of a label are read as one sequence (lines of labelled texts).
        pairs: keys with a value (mqar), or captions with their picture in a sequence (pictures as a
            language).
        filler: "random" or "zeros", where nothing is asked (mqar).
        exponent: of the power law of gaps (mqar).
        segments: several lengths and pairs mixed, or "based" (mqar).
        items: tokens to copy (selective_copying, copying).
        shortest: tokens of the shortest string (string_copying).
        entries: lines of the book (phone_book).
        digits: of a number (phone_book) or of the key (passkey).
        examples: worked look-ups before the question (phone_book).
        question_first: whether the question stands before the book too (phone_book).
        place: where in the text the answer is said, from 0 to 1 (passkey, needle).
        separator: what stands between documents, which are then packed (text).
        template: "plain", or the path of a chat template (JSON lines).
        learn: "assistant" or "all" (JSON lines).
        hide: "points", "spans", "variates" or "mixed" (tables with holes).
        normalize: whether each sequence loses its own mean and deviation (.ts files).
        augment: how strongly training sequences are varied (.ts files).
        deltas: whether each input's change since the step before is read beside it (inertial, archives of
            sequences with targets).

    Raises:
        ValueError: nothing there, an option that this source does not know, or a fault in the data: one line
            that names file, row and column.
    """
    options = {
        "length": length,
        "tokenizer": tokenizer,
        "seed": seed,
        "look_back": look_back,
        "horizon": horizon,
        "split": split,
        "season": season,
        "targets": targets,
        "time": time,
        "observed": observed,
        "known": known,
        "static": static,
        "calendar": calendar,
        "irregular": irregular,
        "gaps": gaps,
        "frequencies": frequencies,
        "valid": valid,
        "count": count,
        "noise": noise,
        "order": order,
        "permute": permute,
        "rate": rate,
        "seconds": seconds,
        "lag": lag,
        "band": band,
        "vocabulary": vocabulary,
        "coefficients": coefficients,
        "quantization": quantization,
        "contour": contour,
        "grey": grey,
        "size": size,
        "objects": objects,
        "mask_rate": mask_rate,
        "eval_rate": eval_rate,
        "span": span,
        "corruption": corruption,
        "joint": joint,
        "pairs": pairs,
        "filler": filler,
        "exponent": exponent,
        "segments": segments,
        "items": items,
        "shortest": shortest,
        "entries": entries,
        "digits": digits,
        "examples": examples,
        "question_first": question_first,
        "place": place,
        "separator": separator,
        "template": template,
        "learn": learn,
        "hide": hide,
        "normalize": normalize,
        "augment": augment,
        "deltas": deltas,
    }
    name, reader, arguments = _reader(source, kind)
    given = {option: value for option, value in options.items() if value is not None}
    known = [option for option in signature(reader).parameters if option in options]
    unknown = [option for option in given if option not in known]
    if unknown:
        raise ValueError(
            f"the source {name!r} has no option {', '.join(map(repr, unknown))}; it knows "
            f"{', '.join(map(repr, known))}. Leave the others out."
        )
    for option, value in given.items():
        _check_number(name, option, value, signature(reader).parameters[option].annotation)
    task = reader(*arguments, **given)
    if kind is not None and task.kind != kind:
        raise ValueError(
            f"the source {name!r} makes a {task.kind} task; kind {kind!r} was asked. Leave kind out, or "
            f"name a source of that kind."
        )
    return task._replace(details={**task.details, "options": given}) if given else task


def _check_number(name: str, option: str, value: Any, kind: Any) -> None:
    """Raise where an option that its reader takes as a number is none."""
    kinds = get_args(kind) or (kind,)
    if kinds == (bool,) and not isinstance(value, bool):
        raise ValueError(
            f"the source {name!r} takes true or false as {option!r}; got {value!r}. Give one of the two."
        )
    if str in kinds or not {int, float} & set(kinds):
        return
    wanted = "a finite number" if float in kinds else "a whole number"
    fits = isinstance(value, Real if float in kinds else Integral) and not isinstance(value, bool)
    if not fits or not isfinite(value):
        raise ValueError(
            f"the source {name!r} takes {wanted} as {option!r}; got {value!r}. Give one, or leave it out."
        )


def options_of(source: str | Path, kind: Kind | None = None) -> list[str]:
    """The options that the reader of this source knows.

    Raises:
        ValueError: nothing there.
    """
    _, reader, arguments = _reader(source, kind)
    return list(signature(reader).parameters)[len(arguments) :]


def _reader(source: str | Path, kind: Kind | None) -> tuple[str, Callable[..., Task], tuple]:
    if str(source) in BUILT_IN:
        masked = MASKED if kind == "masked_language" else {}
        file, function = masked.get(str(source), BUILT_IN[str(source)])
        return str(source), _load(file, function), ()
    path = Path(source)
    if not path.exists():
        near = difflib.get_close_matches(str(source), BUILT_IN, 1)
        raise ValueError(
            f"a source is a path or one of {', '.join(map(repr, BUILT_IN))}; there is no file or folder "
            f"{str(source)!r}. " + (f"Did you mean {near[0]!r}?" if near else "Correct the path.")
        )
    chosen = _by_path(path, kind)
    if kind in ("video", "vision") and (path.is_dir() or chosen == "npz"):
        chosen = kind
    if kind == "language" and chosen not in ("audio", "chat"):
        chosen = "interleaved" if chosen in ("npz", "idx", "pictures") else "text"
    if kind == "masked_language" and chosen != "sequences":
        chosen = "masked text"
    if kind == "imputation" and chosen == "table":
        chosen = "table with holes"
    if kind == "encoder":
        chosen = "pairs" if path.suffix.lower() == ".tsv" else "neighbours"
    file, function, made = READERS[chosen]
    if kind is not None and kind not in made:
        fitting = _OF_TEXT if chosen == "text" else made
        raise ValueError(
            f"{path} is read as {chosen}, for {' or '.join(fitting)}; got kind {kind!r}. Leave kind out, or "
            f"name a source of that kind."
        )
    return str(path), _load(file, function), (path,)


def _by_path(path: Path, kind: Kind | None) -> str:
    """The reader of a path. A folder of text files in folders is one text, unless classes are asked for."""
    if path.is_dir():
        in_folders = any(any(path.glob(f"{inside}*{end}")) for inside in ("*/", "train/*/") for end in _SOUND)
        if in_folders and kind != "language":
            return "wav"
        if in_folders or any(any(path.glob(f"*{end}")) for end in _SOUND):
            return "audio"
        if any(path.glob("*-idx[13]-ubyte*")):
            return "idx"
        if any(path.glob("metadata/*.npy")) or any(path.glob("*/metadata/*.npy")):
            return "pathfinder files"
        if any(path.glob("*train.tsv")):
            return "tsv"
        ends = (".png", ".jpg", ".jpeg")
        seen = (file for pattern in ("*/*", "train/*/*") for file in path.glob(pattern))
        if any(file.suffix.lower() in ends for file in seen):
            return "pictures"
        return "documents" if kind == "classification" else "text"
    name = path.name.lower()
    if name.endswith(_SOUND):
        return "audio"
    if name.removesuffix(".gz").endswith(_LETTERS):
        return "sequences"
    if name.endswith(".tsv") and kind == "classification":
        return "tsv"
    if name.endswith(".jsonl") and kind in (None, "language"):
        return "chat" if _load("chat", "is_chat")(path) else "text"
    return next((reader for end, reader in BY_SUFFIX.items() if name.endswith(end)), "text")


def _load(file: str, function: str) -> Callable[..., Any]:
    return getattr(import_module(f"hippodrome.data.{file}"), function)
