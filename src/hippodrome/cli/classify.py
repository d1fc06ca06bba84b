"""`hippodrome classify`: the class of each sequence in a file or a folder."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from hippodrome.cli._options import Device, Json, present
from hippodrome.cli._output import as_json, table

PANEL = "Use a model"
RECORDINGS = (".wav", ".flac", ".ogg", ".mp3")
PICTURES = (".png", ".jpg", ".jpeg")


class _Cases(NamedTuple):
    """Sequences (t, c) with a name each, and their labels where the file has them."""

    names: list[str]
    values: list[Any]
    labels: list[str] | None


def command(
    run: Annotated[Path, typer.Argument(help="A run folder of a classifier, or a race's folder.")],
    source: Annotated[
        Path,
        typer.Argument(help="A .ts or .npz file, a recording or picture, or a folder of them."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Write CSV here, with the probability of each class.")
    ] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Tell the class of each sequence, and how sure; where the file has labels, also how many are right.

    Recordings and images are read as in the training: at its rate, in its order.
    """
    from hippodrome.estimators import Classifier, load

    classifier = load(run, present(device))
    if not isinstance(classifier, Classifier):
        raise ValueError(f"{run} holds a model for {classifier.run_.spec['kind']}, which tells no classes")
    if classifier.run_.spec.get("vocab_size"):
        raise ValueError(
            f"{run} classifies tokens, and only sequences of values are read from files here: with labels, "
            f"hippodrome evaluate {run} SOURCE tells how many are right"
        )
    options = classifier.run_.details.get("options") or {}
    if classifier.run_.spec["kind"] == "vision":  # which reads pictures whole, as rows of pixels
        options = {**options, "order": "pixels"}
    cases = _read(source, options)
    chances = classifier.predict_proba(cases.values)
    classes = [str(name) for name in classifier.classes_]
    chosen = [classes[i] for i in chances.argmax(1)]
    right = None
    if cases.labels is not None:
        right = sum(a == b for a, b in zip(chosen, cases.labels, strict=True)) / len(chosen)
    if out is not None:
        import pandas

        frame = pandas.DataFrame(chances, columns=[f"p({name})" for name in classes])
        frame.insert(0, "class", chosen)
        frame.insert(0, "sequence", cases.names)
        frame.to_csv(out, index=False)
    rows = [
        {"sequence": name, "class": choice, "probability": round(float(chance), 6)}
        for name, choice, chance in zip(cases.names, chosen, chances.max(1), strict=True)
    ]
    if json:
        as_json({"classes": classes, "accuracy": right, "sequences": rows})
        return
    if out is None:
        cells = [[r["sequence"], r["class"], f"{r['probability']:.3f}"] for r in rows]
        table(str(source), ["sequence", "class", "probability"], cells)
    if right is not None:
        typer.echo(f"right: {100 * right:.2f} % of {len(chosen)}", err=True)


def _read(path: Path, options: dict[str, Any]) -> _Cases:
    """The sequences of a file or folder, shaped by the options that the model was trained with."""
    if not path.exists():
        raise ValueError(f"there is no file or folder {str(path)!r} to classify")
    if path.suffix == ".ts":
        from hippodrome.data.ts import read_ts

        found = read_ts(path)
        return _Cases([str(i + 1) for i in range(len(found.cases))], found.cases, found.labels)
    if path.suffix == ".npz":
        return _arrays(path, options)
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    heard, seen = ([f for f in files if f.suffix.lower() in ends] for ends in (RECORDINGS, PICTURES))
    if heard:
        return _Cases([str(f) for f in heard], [_recording(f, options) for f in heard], None)
    if not seen:
        known = ", ".join((*RECORDINGS, *PICTURES))
        raise ValueError(f"{path}: expected a .ts or .npz file, recordings or pictures ({known})")
    from hippodrome.data.pictures import read

    return _Cases([str(f) for f in seen], _images(path, read(seen), options), None)


def _images(path: Path, images: Any, options: dict[str, Any]) -> list[Any]:
    from hippodrome.data._images import greyed, reader

    images = greyed(images) if options.get("grey") else images
    one = reader(images, str(path), options.get("order", "rows"), options.get("permute"))
    return [one(i) for i in range(len(images))]


def _arrays(path: Path, options: dict[str, Any]) -> _Cases:
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        values, labelled = ("x_test", "y_test") if "x_test" in archive.files else ("inputs", "labels")
        if values not in archive.files:
            raise ValueError(
                f"{path}: expected an array 'inputs' (n, t, c) or (n, t), or 'x_test'; got "
                f"{', '.join(map(repr, archive.files)) or 'none'}. Rename or add it."
            )
        if "dt" in archive.files:
            raise ValueError(
                f"{path}: classify reads sequences with steps of one size; got an array 'dt'. "
                "`hippodrome evaluate` takes them with their labels."
            )
        inputs = archive[values]
        pictures = inputs.dtype == np.uint8 and inputs.ndim in (3, 4) and "lengths" not in archive.files
        lengths = archive["lengths"] if "lengths" in archive.files else [inputs.shape[1]] * len(inputs)
        labels = [str(x) for x in archive[labelled]] if labelled in archive.files else None
    if pictures:
        cases = _images(path, inputs, options)
    else:
        cases = [row[:length] for row, length in zip(inputs, lengths, strict=True)]
    return _Cases([str(i + 1) for i in range(len(cases))], cases, labels)


def _recording(file: Path, options: dict[str, Any]) -> Any:
    import soundfile

    from hippodrome.data.wav import decimated, every_nth

    try:
        samples, native = soundfile.read(file, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    seconds = options.get("seconds")
    most = None if seconds is None else round(seconds * native)
    return decimated(samples[:most], every_nth(file, options.get("rate"), native))
