"""What `hippodrome generate` does with a model of sound: recordings written, and pictures of them."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from hippodrome.runs import Run


def continue_sound(
    run: "Run",
    out: Path | None,
    *,
    prompt: list[str],
    tokens: int | None,
    seconds: float | None,
    clips: int,
    picture: Path | None,
    **sampling: Any,
) -> list[Path]:
    """What ``write_clips`` does, by the options of the verb: the files that were written.

    Raises:
        ValueError: no file to write, two lengths, several prompts, or as ``write_clips``.
    """
    if out is None:
        raise ValueError(f"{run.folder} holds a model of sound: name a file to write with --out FILE.wav")
    if tokens is not None and seconds is not None:
        raise ValueError("--tokens and --seconds both say how long a clip is; give one of them")
    if len(prompt) > 1:
        raise ValueError(f"clips go on from one recording; got {len(prompt)}. Leave all but one --prompt out")
    length = 1.0 if seconds is None else seconds
    paths = write_clips(
        run,
        out,
        seconds=length if tokens is None else tokens / run.details["sound"]["rate"],
        clips=clips,
        prompt=Path(prompt[0]) if prompt else None,
        picture=picture,
        **sampling,
    )
    return [*paths, *([picture] if picture is not None else [])]


def write_clips(
    run: "Run",
    out: Path,
    *,
    seconds: float,
    clips: int,
    prompt: Path | None,
    picture: Path | None,
    **sampling: Any,
) -> list[Path]:
    """Clips from a model of sound, each in a file: OUT, or OUT-1, OUT-2 and so on where there are several.

    Args:
        run: of a language model whose data were recordings.
        out: a ``.wav`` file.
        seconds: new sound in each clip.
        clips: how many; they differ by chance alone.
        prompt: a recording to go on from, which each file then begins with; silence where there is none.
        picture: where the spectrograms go as a PNG.
        sampling: of ``generate.generate``.

    Raises:
        ValueError: a name that does not end in .wav or .png, a folder that is not there, no sound to make,
            or a prompt that cannot be read at the model's rate.
    """
    import numpy as np
    import soundfile
    import torch

    from hippodrome import generate
    from hippodrome.analyze.spectrogram import spectrograms
    from hippodrome.data.quantization import SILENCE, dequantize
    from hippodrome.train.checkpoint import write_atomically

    rate, quantization = run.details["sound"]["rate"], run.details["sound"]["quantization"]
    if not math.isfinite(seconds):
        raise ValueError(f"seconds is a finite number; got {seconds:g}")
    new = round(seconds * rate)
    if new < 1:
        raise ValueError(f"a clip holds one sample at least; got {seconds:g} seconds at {rate} Hz")
    for path, end in ((out, ".wav"), *([(picture, ".png")] if picture is not None else [])):
        if path.suffix.lower() != end:
            raise ValueError(f"this file's name ends in {end}; got {path}")
        if not path.parent.is_dir():
            raise ValueError(f"there is no folder {path.parent} for {path.name}; make it, or name one")
    begin = np.zeros(0, np.uint8) if prompt is None else _prompt(prompt, rate, quantization)
    ids = torch.tensor([[SILENCE, *begin.tolist()]]).expand(clips, -1)
    tokens = generate.generate(run.model, ids, max_new_tokens=new, **sampling)
    made = torch.stack([token.cpu() for token in tokens], 1).numpy()
    levels = np.concatenate([np.tile(begin, (clips, 1)), made], 1)
    several = clips > 1
    paths = [out.with_stem(f"{out.stem}-{i + 1}") if several else out for i in range(clips)]
    sounds = [dequantize(row, quantization) for row in levels]
    for path, samples in zip(paths, sounds, strict=True):

        def fill(file: Any, samples: Any = samples) -> None:
            soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")

        write_atomically(path, fill)
    if picture is not None:
        named = {path.name: samples for path, samples in zip(paths, sounds, strict=True)}
        png = spectrograms(named, rate, f"{run.folder.resolve().name}, {rate} Hz")
        write_atomically(picture, lambda file: file.write(png))
    return paths


def _prompt(path: Path, rate: int, quantization: Any) -> "np.ndarray":
    """The levels of a recording at the rate of a model."""
    import soundfile

    from hippodrome.data.quantization import quantize
    from hippodrome.data.wav import check_recordings, decimated, every_nth

    if not path.is_file():
        raise ValueError(f"the prompt of a model of sound is a recording; there is no file {path}")
    _, native, _ = check_recordings([path])
    if native % rate:
        raise ValueError(
            f"{path} has {native} Hz, and the model {rate}: a prompt's rate is that or a multiple of it"
        )
    samples = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(1, keepdims=True)
    return quantize(decimated(samples, every_nth(path, rate, native))[:, 0], quantization)
