"""Folders of recordings, a subfolder a class: raw samples to a label."""

from pathlib import Path

import numpy as np
import soundfile

from hippodrome.data._labelled import folder_by_class, labelled_task
from hippodrome.data.base import Task, fault

SUFFIXES = (".wav", ".flac", ".ogg")


def open_wav(
    path: str | Path,
    *,
    rate: int | None = None,
    seconds: float | None = None,
    count: int | None = None,
    valid: float = 0.2,
    seed: int = 0,
) -> Task:
    """A classification task over recordings: ``folder/CLASS/*.wav`` (also flac and ogg), read when needed.

    ``folder/train``, ``folder/test`` and, if wanted, ``folder/valid``, with the classes inside, are taken as
    they are; without them 20 % of each class test. Samples are in [-1, 1], one channel a track. A lower rate
    is made by ``decimated``: a low-pass, then every k-th sample.

    Args:
        path: the folder.
        rate: samples a second to read at, the recordings' own divided by a whole number; None for their own.
        seconds: longest piece that is kept, from the start of each recording; None for all of it.
        count: how many train recordings to keep, the same share of each class; None for all.
        valid: share of the train recordings to validate on, where there is no ``valid`` folder.
        seed: of the cuts.

    Raises:
        ValueError: no recordings, one that cannot be read or is empty, or two that differ in sampling rate or
            number of tracks; it names the file. A rate that does not divide the recordings', or a piece
            shorter than one sample.
    """
    path = Path(path)
    found = folder_by_class(path, recordings, f"recordings ({', '.join(SUFFIXES)})", count, valid, seed)
    files = found.files
    lengths, native, tracks = check_recordings(files)
    every = every_nth(path, rate, native)
    most = None if seconds is None else round(seconds * native)
    if most is not None and most < every:
        raise ValueError(
            f"{path}: the longest piece holds one sample at least; got {seconds:g} seconds at {native} Hz. "
            f"Take more."
        )
    cut = 0 if most is None else int((lengths > most).sum())
    lengths = lengths if most is None else np.minimum(lengths, most)

    def read(index: int) -> np.ndarray:
        frames = -1 if most is None else most
        return decimated(soundfile.read(files[index], frames, dtype="float32", always_2d=True)[0], every)

    return labelled_task(
        read,
        found.labels,
        found.parts,
        found.classes,
        path.name,
        str(path),
        {
            "source": str(path),
            "sampling": f"{native // every} Hz"
            + ("" if every == 1 else f": recorded at {native} Hz, low-pass, every {every}. sample"),
            "tracks": tracks,
            **({} if most is None else {"cut": f"{cut} of {len(files)} to their first {seconds:g} s"}),
        },
        lengths=-(-lengths // every),
        statistics_from=256,
    )


def decimated(samples: np.ndarray, every: int) -> np.ndarray:
    """Every k-th sample (t, c) behind an ideal low-pass at half the new rate.

    The filter sets all frequencies from there on to zero in one Fourier transform of the whole recording, so
    its ends are joined: it rings where they differ.
    """
    if every == 1:
        return samples
    spectrum = np.fft.rfft(samples.astype(np.float64), axis=0)
    frequencies = np.fft.rfftfreq(len(samples))  # cycles a sample
    spectrum[frequencies >= 0.5 / every] = 0
    return np.fft.irfft(spectrum, len(samples), axis=0)[::every].astype(samples.dtype)


def every_nth(path: Path, rate: int | None, native: int) -> int:
    """Which sample of ``native`` a second is kept: every k-th. Raises ValueError for a rate that is none."""
    if rate is None:
        return 1
    if rate < 1 or native % rate:
        divisors = [native // k for k in range(1, 9) if native % k == 0]
        raise ValueError(
            f"{path}: the recordings have {native} Hz, and a lower rate divides it; got {rate}. Take one of "
            f"{', '.join(map(str, divisors))}."
        )
    return native // rate


def recordings(folder: Path) -> list[Path]:
    """All recordings one subfolder down, in the order of their names."""
    return sorted(file for file in folder.glob("*/*") if file.suffix.lower() in SUFFIXES)


def check_recordings(files: list[Path]) -> tuple[np.ndarray, int, int]:
    """Lengths of all, and the sampling rate and number of tracks that they share.

    Raises:
        ValueError: one cannot be read or is empty, or two differ; it names the file.
    """
    lengths = []
    rate = tracks = 0
    for file in files:
        try:
            about = soundfile.info(str(file))
        except soundfile.SoundFileError as error:
            reason = str(error).rstrip(".").split(": ")[-1]
            raise fault(file, "a recording", f"a file that cannot be read ({reason})", "Remove it.") from None
        if not about.frames:
            raise fault(file, "a recording", "an empty one", "Remove it.")
        rate, tracks = rate or about.samplerate, tracks or about.channels
        if about.samplerate != rate:
            raise fault(
                file, f"{rate} Hz as in {files[0].name}", f"{about.samplerate} Hz",
                "Bring all recordings to one sampling rate.",
            )  # fmt: skip
        if about.channels != tracks:
            raise fault(
                file, f"{tracks} tracks as in {files[0].name}", f"{about.channels}",
                "Bring all recordings to one number of tracks.",
            )  # fmt: skip
        lengths.append(about.frames)
    return np.array(lengths), rate, tracks
