"""Checkpoints of other programs: opened where they lie, converted into run folders, and written back.

``open_model`` opens a run folder of ours or a checkpoint folder alike; ``convert`` makes a run folder of a
checkpoint; ``export`` writes a run in the layout it came from, or in another that can say what it is.
"""

import json
from pathlib import Path
from typing import Any

from hippodrome import runs
from hippodrome.checkpoints import reading, writing
from hippodrome.checkpoints.reading import is_checkpoint
from hippodrome.checkpoints.writing import layouts

__all__ = ["convert", "export", "is_checkpoint", "layouts", "open_model"]

ORIGIN = "origin.json"
"""In a run folder: the layout, the configuration and the dtypes that its weights came with."""


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
    if not is_checkpoint(folder):
        run = runs.load(folder, device)
        if dtype is not None:
            reading.cast(run.model, reading.chosen_dtype(dtype, {}))
        return run._replace(**_words(folder, tokenizer, run)) if tokenizer is not None else run
    loaded = reading.load(folder, dtype)
    vocabulary = loaded.spec["vocab_size"]
    found = words.read(_place(folder, tokenizer), vocabulary)
    if tokenizer is not None and found is None:
        raise ValueError(f"{tokenizer} has no tokenizer.json")
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


def _words(folder: Path, tokenizer: str | Path, run: runs.Run) -> dict[str, Any]:
    """The fields of a run that another tokenizer changes."""
    from hippodrome.text import folder as words

    found = words.read(_place(folder, tokenizer), run.spec.get("vocab_size"))
    if found is None:
        raise ValueError(f"{tokenizer} has no tokenizer.json")
    return {"tokenizer": found.tokenizer, "words": found}


def convert(source: Path, out: Path, *, dtype: str | None = None, tokenizer: Path | None = None) -> runs.Run:
    """Makes a run folder of a checkpoint: what every verb reads, the tokenizer files, and ``origin.json``.

    Raises ValueError as ``open_model`` does, and where ``out`` is not new or empty.
    """
    from hippodrome.text.folder import carry

    run = open_model(source, dtype=dtype, tokenizer=tokenizer)
    if "origin" not in run.details:
        raise ValueError(f"{source} is a run folder already. Name a layout to write it in with --to")
    origin = run.details["origin"]
    details = {k: v for k, v in run.details.items() if k != "origin"}

    def fill(folder: Path) -> None:
        (folder / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
        if run.words is not None:
            carry(run.words, _place(source, tokenizer), folder)

    runs.save(run._replace(details=details), out, fill)
    return runs.load(out)


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
    origin = run.details.get("origin")
    if origin is None and (run.folder / ORIGIN).exists():
        origin = json.loads((run.folder / ORIGIN).read_text(encoding="utf-8"))
    if layout is None and origin is None:
        raise ValueError(
            f"{source} was trained here and came from no other layout: name one to write it in, of "
            f"{', '.join(layouts())}"
        )
    if layout is not None and (origin is None or origin["layout"] != layout):
        kind = next(run.model.parameters()).dtype
        origin = writing.origin_of(run.spec, layout, kind)
    assert origin is not None
    chosen = None if dtype is None else reading.chosen_dtype(dtype, {})

    def fill(folder: Path) -> None:
        if run.words is not None:
            carry(run.words, _place(source, tokenizer), folder)

    return writing.export(run.model, origin, out, fill, dtype=chosen, shard=shard)


def _place(folder: Path, tokenizer: str | Path | None) -> Path:
    """Where the tokenizer files lie."""
    place = folder if tokenizer is None else Path(tokenizer)
    return place.parent if place.is_file() else place
