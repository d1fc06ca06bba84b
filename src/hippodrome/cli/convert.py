"""`hippodrome convert`: a checkpoint of another program into a run folder, or a model back into a layout."""

from pathlib import Path
from typing import Annotated

import typer

from hippodrome.cli._options import Json
from hippodrome.cli._output import as_json, count, size, table

PANEL = "Use a model"


def command(
    source: Annotated[Path, typer.Argument(help="The folder of a checkpoint, or a run folder.")],
    out: Annotated[Path, typer.Option(help="The folder to write: new, or empty.")],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="LAYOUT",
            help='Write a checkpoint in this layout, "origin" for the one it came from. Without it, a run.',
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float64. [default: as it is stored]")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A folder with the tokenizer's files, where the source has none.")
    ] = None,
    shard: Annotated[str, typer.Option(help="Largest file of weights that is written.")] = "5GB",
    json: Json = False,
) -> None:
    """Convert between checkpoints of other programs and run folders.

    A checkpoint folder (config.json and safetensors, or the authors' pytorch_model.bin, of which tensors
    alone are read) becomes a run folder, which every verb takes. Most take the checkpoint's folder too.
    With --to, a model is written as a checkpoint: one that came from there with the same names, the same
    types and, where nothing was trained, the same bits.
    """
    from hippodrome import checkpoints

    if to is None:
        run = checkpoints.convert(source, out, dtype=dtype, tokenizer=tokenizer)
        weights = (out / "model.safetensors").stat().st_size
        facts = {
            "layout": run.details["origin"]["layout"],
            "parameters": sum(p.numel() for p in run.model.parameters()),
            "dtype": str(next(run.model.parameters()).dtype).removeprefix("torch."),
            "bytes": weights,
            "tokenizer": "none" if run.words is None else f"{run.words.tokenizer.get_vocab_size()} tokens",
            "chat template": "yes" if run.template is not None else "none",
        }
        if json:
            as_json({**facts, "folder": str(out)})
            return
        shown = {**facts, "parameters": count(facts["parameters"]), "bytes": size(weights)}  # type: ignore[arg-type]
        table(f"{source} as a run folder", ["what", "value"], [[k, str(v)] for k, v in shown.items()])
        typer.echo(f"run folder: {out}")
        return
    paths = checkpoints.export(
        source,
        out,
        layout=None if to == "origin" else to,
        dtype=dtype,
        tokenizer=tokenizer,
        shard=_bytes(shard),
    )
    if json:
        as_json({"files": [str(path) for path in paths]})
        return
    for path in paths:
        typer.echo(f"{path} ({size(path.stat().st_size)})")


def _bytes(text: str) -> int:
    """A number of bytes with a unit: 500MB, 5GB."""
    import re

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMG]?)B\s*", text, re.IGNORECASE)
    scale = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"the largest file is a number of bytes with a unit, 500MB or 5GB say; got {text!r}")
    return max(1, round(float(match[1]) * scale[match[2].lower()]))
