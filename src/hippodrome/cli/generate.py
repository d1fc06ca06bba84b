"""`hippodrome generate`: text from a trained language model, as it comes."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hippodrome.cli._options import Device, Json, present
from hippodrome.cli._output import as_json

PANEL = "Use a model"


def command(
    run: Annotated[Path, typer.Argument(help="A run folder of a language model.")],
    prompt: Annotated[
        str | None, typer.Option(help="Text to go on from; standard input if left out.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=0, help="New tokens at most.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1, help="Choose among the k likeliest.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Choose among the likeliest that hold this share.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Drop what is less likely than this share of the best.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.")] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Continue a text."""
    from hippodrome import generate, runs

    opened = runs.load(run, present(device))
    if opened.tokenizer is None or opened.details["kind"] != "language":
        raise ValueError(f"{run} holds a model for {opened.details['kind']}, which writes no text")
    begin = sys.stdin.read() if prompt is None else prompt
    pieces = generate.text(
        opened.model,
        opened.tokenizer,
        begin,
        max_new_tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
    )
    if json:
        as_json({"prompt": begin, "text": "".join(pieces)})
        return
    typer.echo(begin, nl=False)
    for piece in pieces:
        typer.echo(piece, nl=False)
        sys.stdout.flush()
    typer.echo()
