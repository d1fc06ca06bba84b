"""Checkpoints of other programs: opened where they lie, converted into run folders, and written back.

``open_model`` opens a run folder of ours or a checkpoint folder alike; ``convert`` makes a run folder of a
checkpoint; ``export`` writes a run in the layout it came from, or in another that can say what it is.
"""

from pathlib import Path

from hippodrome import runs
from hippodrome.checkpoints import origin, reading, writing
from hippodrome.checkpoints.origin import layouts
from hippodrome.checkpoints.reading import is_checkpoint

__all__ = ["convert", "export", "is_checkpoint", "layouts", "open_model", "origin"]


def open_model(
    path: str | Path,
    device: str = "cpu",
    *,
    dtype: str | None = None,
    tokenizer: str | Path | None = None,
) -> runs.Run:
    """Opens a run folder, or the folder of a checkpoint of another program, ready for inference.

    Args:
        path: the folder.
        device: where the model goes.
        dtype: of the weights, "float32", "bfloat16" or "float64"; None takes that of a run, or for a
            checkpoint bfloat16 where the file has it, else float32.
        tokenizer: a folder with tokenizer files, or a ``tokenizer.json``, where the folder has none.

    Raises:
        ValueError: neither kind of folder, or one whose parts do not fit each other, in a sentence.
    """
    from hippodrome.text import folder as words

    folder = Path(path)
    place = _place(folder, tokenizer)
    if tokenizer is not None and words.read(place) is None:
        raise ValueError(f"{tokenizer} has no tokenizer.json")
    if not is_checkpoint(folder):
        run = runs.load(folder, device)
        if dtype is not None:
            reading.cast(run.model, reading.chosen_dtype(dtype, {}))
        if tokenizer is None:
            return run
        found = words.read(place, run.spec.get("vocab_size"))
        return run._replace(tokenizer=None if found is None else found.tokenizer, words=found)
    loaded = reading.load(folder, dtype)
    found = words.read(place, loaded.spec["vocab_size"])
    return runs.Run(
        model=loaded.model.to(runs.device_of(device)),
        spec=loaded.spec,
        tokenizer=None if found is None else found.tokenizer,
        details={"kind": "language", "name": folder.name, "origin": loaded.origin},
        folder=folder,
        settings=runs.TrainSettings(),
        result=None,
        words=found,
    )


def convert(source: Path, out: Path, *, dtype: str | None = None, tokenizer: Path | None = None) -> runs.Run:
    """Makes a run folder of a checkpoint: what every verb reads, the tokenizer files, and ``origin.json``.

    Raises ValueError as ``open_model`` does, and where ``out`` is not new or empty.
    """
    from hippodrome.text.folder import carry

    run = open_model(source, dtype=dtype, tokenizer=tokenizer)
    if "origin" not in run.details:
        raise ValueError(f"{source} is a run folder already. Name a layout to write it in with --to")
    came = run.details["origin"]
    saved = run._replace(details={k: v for k, v in run.details.items() if k != "origin"})

    def fill(folder: Path) -> None:
        origin.write(folder, came)
        if run.words is not None:
            carry(run.words, _place(source, tokenizer), folder)

    runs.save(saved, out, fill)
    return run._replace(folder=out)


def export(
    source: Path,
    out: Path,
    *,
    layout: str | None = None,
    dtype: str | None = None,
    tokenizer: Path | None = None,
    shard: int = writing.SHARD,
) -> list[Path]:
    """Writes the model of a run or checkpoint folder in a layout, None for the one it came from.

    Raises:
        ValueError: a model that began here and no layout named, a layout that cannot say what the model is,
            or a folder that is not empty.
    """
    from hippodrome.text.folder import carry

    run = open_model(source, tokenizer=tokenizer)
    if "quantized" in run.details:
        raise ValueError(
            f"{source} has its weights in {run.details['quantized']}, and layouts of other programs hold "
            f"them in full: write the run that it was made of"
        )
    came = run.details.get("origin") or origin.read(run.folder)
    if layout is None and came is None:
        raise ValueError(
            f"{source} was trained here and came from no other layout: name one to write it in, of "
            f"{', '.join(layouts())}"
        )
    if layout is not None and (came is None or came["layout"] != layout):
        kind = next(run.model.parameters()).dtype
        came = writing.origin_of(run.spec, layout, kind)
    assert came is not None
    chosen = None if dtype is None else reading.chosen_dtype(dtype, {})

    def fill(folder: Path) -> None:
        if run.words is not None:
            carry(run.words, _place(source, tokenizer), folder)

    return writing.export(run.model, came, out, fill, dtype=chosen, shard=shard)


def _place(folder: Path, tokenizer: str | Path | None) -> Path:
    """Where the tokenizer files lie."""
    place = folder if tokenizer is None else Path(tokenizer)
    return place.parent if place.name == "tokenizer.json" else place
