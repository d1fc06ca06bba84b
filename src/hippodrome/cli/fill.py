"""`hippodrome fill`: what stands in the holes of a text, by a model that was trained to fill them in."""

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from hippodrome.cli._options import Device, Json, present
from hippodrome.cli._output import as_json, table

PANEL = "Use a model"


def command(
    run: Annotated[Path, typer.Argument(help="A run folder of a masked language model.")],
    text: Annotated[
        str | None,
        typer.Argument(help="With [MASK] for each hidden token, [MASKx5] for five; else standard input."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Candidates to name for each place.")] = 5,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Fill in all places from what is given, not the surest first.")
    ] = False,
    score: Annotated[
        bool,
        typer.Option("--score", help="Instead tell how likely the text is, hiding one token at a time."),
    ] = False,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Fill in the hidden tokens of a text, letter by letter for a model of bytes or of DNA."""
    from hippodrome import runs
    from hippodrome.generate.filling import fill, holed
    from hippodrome.models.masked_language import MaskedLanguageModel

    opened = runs.load(run, present(device))
    model = opened.model
    if not isinstance(model, MaskedLanguageModel) or opened.tokenizer is None:
        raise ValueError(
            f"{run} holds a model for {opened.spec['kind']}, which fills nothing in. Train one with "
            f"--kind masked_language."
        )
    given = (sys.stdin.read() if text is None else text).rstrip("\n")
    if score:
        tokens = holed(model.mask_token, opened.tokenizer, given)
        if not len(tokens) or bool((tokens == model.mask_token).any()):
            raise ValueError("a text to score has a token at least, and none that is hidden")
        nats = model.pseudo_nats(tokens.to(next(model.parameters()).device))
        told = {"tokens": len(tokens), "nats": float(nats.mean()), "perplexity": math.exp(float(nats.mean()))}
        if json:
            as_json({"text": given, **told, "each": nats.tolist()})
        else:
            table(str(run), ["what", "value"], [[name, f"{value:.6g}"] for name, value in told.items()])
        return
    found = fill(model, opened.tokenizer, given, top=top, at_once=at_once)
    if json:
        as_json({"text": found.text, "places": found.places})
        return
    typer.echo(found.text)
    rows = [
        [i, "  ".join(f"{token!r} {chance:.3f}" for token, chance in zip(*place, strict=True))]
        for i, place in enumerate(found.places, 1)
    ]
    table("", ["place", "likeliest, before any was filled in"], rows)
