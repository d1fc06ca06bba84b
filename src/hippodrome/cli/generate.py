"""`hippodrome generate`: text from a trained language model, as it comes, or sound into a file."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hippodrome.cli._options import Device, Json, present
from hippodrome.cli._output import as_json

PANEL = "Use a model"


def command(
    run: Annotated[Path, typer.Argument(help="A run folder of a language model.")],
    prompt: Annotated[
        str | None,
        typer.Option(help="Text to go on from (else standard input); for sound a recording, or nothing."),
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=0, help="New tokens at most. [default: 256]")] = None,
    out: Annotated[
        Path | None, typer.Option(help="For sound: the .wav file to write; for videos a .png.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="For sound: how long. [default: 1]")] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help="For sound and videos: how many. [default: 1]")
    ] = None,
    spectrogram: Annotated[Path | None, typer.Option(help="For sound: a .png of all clips.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="0 takes the likeliest token. [default: 0.8; for sound 1]")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Choose among the k likeliest.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Choose among the likeliest that hold this share.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Drop what is less likely than this share of the best.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same.")] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Continue a text, or make sound: a model trained on recordings writes --out, a .wav file."""
    from hippodrome import generate, runs

    opened = runs.load(run, present(device))
    cuts: dict[str, Any] = {"top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed}
    if "sound" in opened.details:
        from hippodrome.cli._sound import write_clips

        if out is None:
            raise ValueError(f"{run} holds a model of sound: name a file to write with --out FILE.wav")
        if tokens is not None and seconds is not None:
            raise ValueError("--tokens and --seconds both say how long a clip is; give one of them")
        length = 1.0 if seconds is None else seconds
        paths = write_clips(
            opened,
            out,
            seconds=length if tokens is None else tokens / opened.details["sound"]["rate"],
            clips=clips or 1,
            prompt=None if prompt is None else Path(prompt),
            picture=spectrogram,
            temperature=1.0 if temperature is None else temperature,
            **cuts,
        )
        if json:
            as_json({"files": [str(path) for path in paths]})
        else:
            for path in (*paths, *([spectrogram] if spectrogram is not None else [])):
                typer.echo(str(path))
        return
    if opened.details["kind"] == "video":
        from hippodrome.cli._frames import write_frames

        if out is None:
            raise ValueError(f"{run} holds a model of videos: name a picture to write with --out FILE.png")
        _not_for(run, "videos", prompt=prompt, tokens=tokens, seconds=seconds, spectrogram=spectrogram,
                 temperature=temperature, **cuts)  # fmt: skip
        write_frames(opened, out, videos=clips or 1)
        if json:
            as_json({"files": [str(out)]})
        else:
            typer.echo(str(out))
        return
    if opened.details["kind"] != "language":
        masked = opened.details["kind"] == "masked_language"
        filled = f", or let it fill in what is hidden: hippodrome fill {run}" if masked else ""
        raise ValueError(
            f"{run} holds a model for {opened.details['kind']}, which writes nothing. Name a run of text, "
            f"sound or videos{filled}."
        )
    if opened.tokenizer is None:
        raise ValueError(
            f"{run} was trained on {opened.details['name']}, whose tokens are no text: evaluate it instead"
        )
    _not_for(run, "text", out=out, seconds=seconds, spectrogram=spectrogram, clips=clips)
    begin = sys.stdin.read() if prompt is None else prompt
    pieces = generate.text(
        opened.model,
        opened.tokenizer,
        begin,
        max_new_tokens=256 if tokens is None else tokens,
        temperature=0.8 if temperature is None else temperature,
        **cuts,
    )
    if json:
        as_json({"prompt": begin, "text": "".join(pieces)})
        return
    typer.echo(begin, nl=False)
    for piece in pieces:
        typer.echo(piece, nl=False)
        sys.stdout.flush()
    typer.echo()


def _not_for(run: Path, what: str, **given: Any) -> None:
    """Raises ValueError for an option that a model of this does not take."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} is not for models of {what}, and {run} holds one: leave it out"
            )
