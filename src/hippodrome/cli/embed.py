"""`hippodrome embed`: texts to vectors, one a line, by a trained encoder or a language model's backbone."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hippodrome.cli._options import Device, Json, present
from hippodrome.cli._output import as_json

PANEL = "Use a model"
ENDS = (".npz", ".parquet", ".csv")


def command(
    run: Annotated[Path, typer.Argument(help="A run folder of an encoder, or of a (masked) language model.")],
    source: Annotated[
        Path | None, typer.Argument(help="A file with a text a line; else standard input.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write .npz (an array 'vectors'), .parquet or .csv instead.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts at once.")] = 32,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Turn each line of a file into a vector of length 1: what the model learned to hold together lies near.

    Of a language model it is the mean of the features over the line, which was trained for something else.
    """
    from hippodrome import checkpoints
    from hippodrome.generate.vectors import vectors

    if out is not None and out.suffix not in ENDS:
        raise ValueError(f"vectors are written to {', '.join(ENDS)}; got {str(out)!r}. Name one of these")
    opened = checkpoints.open_model(run, present(device))
    lines = (sys.stdin.read() if source is None else source.read_text(encoding="utf-8")).splitlines()
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise ValueError(f"{source or 'standard input'} holds no line to embed")
    found = vectors(opened.model, opened.tokenizer, texts, batch_size).cpu().numpy()
    if out is None:
        rows = [{"text": text, "vector": vector.tolist()} for text, vector in zip(texts, found, strict=True)]
        if json:
            as_json(rows)
            return
        for vector in found:
            typer.echo("\t".join(f"{value:.6g}" for value in vector))
        return
    if out.suffix == ".npz":
        import numpy as np

        np.savez(out, vectors=found)
    else:
        import pandas

        frame = pandas.DataFrame(found, columns=[f"v{i}" for i in range(found.shape[1])])
        frame.insert(0, "text", texts)
        frame.to_csv(out, index=False) if out.suffix == ".csv" else frame.to_parquet(out)
    if json:
        as_json({"file": str(out), "texts": len(texts), "channels": found.shape[1]})
    else:
        typer.echo(f"{len(texts)} vectors of {found.shape[1]} channels: {out}")
