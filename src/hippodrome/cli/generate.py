"""`hippodrome generate`: text from a language model, as it comes, or sound or pictures into a file."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hippodrome.cli._opened import Precision, Sampling, Threads, Tokenizer, on_threads, opened
from hippodrome.cli._options import Device, Json
from hippodrome.cli._output import as_json

PANEL = "Use a model"
TEXT, CHANCE, FILES = "Text", "Chance", "Sound and videos"


def command(
    run: Annotated[Path, typer.Argument(help="A run folder, or the folder of a checkpoint.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="Text to go on from, several times for several (else standard input); for sound a recording."
        ),
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=0, help="New tokens at most. [default: 256]")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A file with a prompt a line.", rich_help_panel=TEXT)
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Texts for each prompt.", rich_help_panel=TEXT)
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="End before this text; may be given again.", rich_help_panel=TEXT),
    ] = None,
    regex: Annotated[
        str | None, typer.Option(help="The text matches this pattern as a whole.", rich_help_panel=TEXT)
    ] = None,
    json_schema: Annotated[
        Path | None,
        typer.Option(help="The text is JSON that is valid by this schema.", rich_help_panel=TEXT),
    ] = None,
    beams: Annotated[
        int | None,
        typer.Option(min=1, help="Search for the likeliest text with so many.", rich_help_panel=TEXT),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="The prompt is a message to answer.", rich_help_panel=TEXT)
    ] = False,
    system: Annotated[
        str | None, typer.Option(help="With --chat: the message before it.", rich_help_panel=TEXT)
    ] = None,
    logprobs: Annotated[
        int | None,
        typer.Option(min=0, help="With --json: of each token and the likeliest.", rich_help_panel=TEXT),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Go on from a state that --save-state wrote.", rich_help_panel=TEXT),
    ] = None,
    save_state: Annotated[
        Path | None, typer.Option(help="Write the state at the end, to go on later.", rich_help_panel=TEXT)
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0, help="0 takes the likeliest token. [default: 0.8; for sound 1]", rich_help_panel=CHANCE
        ),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Choose among the k likeliest.", rich_help_panel=CHANCE)
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Choose among the likeliest that hold this share.", rich_help_panel=CHANCE),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(help="Drop what is less likely than this share of the best.", rich_help_panel=CHANCE),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(help="Above 1: tokens seen before are less likely.", rich_help_panel=CHANCE),
    ] = None,
    presence_penalty: Annotated[
        float | None,
        typer.Option(help="Off the logit of each token written before.", rich_help_panel=CHANCE),
    ] = None,
    frequency_penalty: Annotated[
        float | None,
        typer.Option(help="The same for each time it was written.", rich_help_panel=CHANCE),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same.", rich_help_panel=CHANCE)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The .wav file to write; for videos a .png.", rich_help_panel=FILES),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="For sound: how long. [default: 1]", rich_help_panel=FILES)
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help="How many. [default: 1]", rich_help_panel=FILES)
    ] = None,
    spectrogram: Annotated[
        Path | None, typer.Option(help="For sound: a .png of all clips.", rich_help_panel=FILES)
    ] = None,
    tokenizer: Tokenizer = None,
    threads: Threads = None,
    dtype: Precision = None,
    stats: Annotated[bool, typer.Option("--stats", help="Tell tokens a second on standard error.")] = False,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Continue texts, or make sound: a model trained on recordings writes --out, a .wav file.

    Text is shown as it comes. Several prompts are continued together, each as it would be alone.
    """
    sampling = Sampling(
        temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty
    )
    of_text: dict[str, Any] = {
        "prompts": prompts, "n": n, "stop": stop, "regex": regex, "json_schema": json_schema,
        "beams": beams, "chat": chat or None, "system": system, "logprobs": logprobs, "state": state,
        "save_state": save_state, "stats": stats or None, "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty, "frequency_penalty": frequency_penalty,
    }  # fmt: skip
    with on_threads(threads):
        model = opened(run, device, dtype, tokenizer)
        if "sound" in model.details:
            from hippodrome.cli._sound import continue_sound

            _not_for(run, "sound", **of_text)
            files = continue_sound(
                model,
                out,
                prompt=prompt or [],
                tokens=tokens,
                seconds=seconds,
                clips=clips or 1,
                picture=spectrogram,
                temperature=1.0 if temperature is None else temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                seed=seed,
            )
            _tell(files, json, spectrogram)
            return
        if model.details["kind"] == "video":
            from hippodrome.cli._frames import write_frames

            if out is None:
                raise ValueError(
                    f"{run} holds a model of videos: name a picture to write with --out FILE.png"
                )
            given = {**of_text, **sampling._asdict(), "prompt": prompt, "tokens": tokens, "seed": seed}
            _not_for(run, "videos", **given, seconds=seconds, spectrogram=spectrogram)
            write_frames(model, out, videos=clips or 1)
            _tell([out], json, None)
            return
        if model.details["kind"] != "language":
            masked = model.details["kind"] == "masked_language"
            filled = f", or let it fill in what is hidden: hippodrome fill {run}" if masked else ""
            raise ValueError(
                f"{run} holds a model for {model.details['kind']}, which writes nothing. Name a run of text, "
                f"sound or videos{filled}."
            )
        _not_for(run, "text", out=out, seconds=seconds, spectrogram=spectrogram, clips=clips)
        from hippodrome.cli._text import TextOptions, write_text

        asked = TextOptions(
            prompt=prompt or [],
            prompts=prompts,
            tokens=256 if tokens is None else tokens,
            rows=n or 1,
            stops=stop or [],
            regex=regex,
            json_schema=json_schema,
            beams=beams,
            chat=chat,
            system=system,
            logprobs=logprobs,
            state=state,
            save_state=save_state,
            sampling=sampling,
            seed=seed,
            stats=stats,
            json=json,
        )
        write_text(model, asked)


def _tell(files: list[Path], json: bool, picture: Path | None) -> None:
    if json:
        as_json({"files": [str(path) for path in files if path != picture]})
        return
    for path in files:
        typer.echo(str(path))


def _not_for(run: Path, what: str, **given: Any) -> None:
    """Raises ValueError for an option that a model of this does not take."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} is not for models of {what}, and {run} holds one: leave it out"
            )
