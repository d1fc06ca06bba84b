"""Folders of recordings, a subfolder a class: raw samples to a label."""

from pathlib import Path

import numpy as np
import soundfile

from hippodrome.data._labelled import labelled_task, stratified
from hippodrome.data.base import Task, fault

SUFFIXES = (".wav", ".flac", ".ogg")
_PARTS = ("train", "valid", "test")


def open_wav(path: str | Path, *, valid: float = 0.2, seed: int = 0) -> Task:
    """A classification task over recordings: ``folder/CLASS/*.wav`` (also flac and ogg), read when needed.

    ``folder/train``, ``folder/test`` and, if wanted, ``folder/valid``, with the classes inside, are taken as
    they are; without them 20 % of each class test. Samples are in [-1, 1], one channel a track. Nothing is
    resampled.

    Args:
        path: the folder.
        valid: share of the train recordings to validate on, where there is no ``valid`` folder.
        seed: of the cuts.

    Raises:
        ValueError: no recordings, one that cannot be read or is empty, or two that differ in sampling rate or
            number of tracks; it names the file.
    """
    path = Path(path)
    split = [part for part in _PARTS if (path / part).is_dir()]
    ready = "train" in split and "test" in split
    roots = {part: path / part for part in split} if ready else {"train": path}
    found = [(file, part) for part, root in roots.items() for file in recordings(root)]
    if not found:
        raise fault(
            path, f"recordings ({', '.join(SUFFIXES)}) in a subfolder a class", "none", "Name such a folder."
        )
    files, parts = [file for file, _ in found], np.array([part for _, part in found])
    lengths, rate, tracks = _check(files)
    classes = sorted({file.parent.name for file in files})
    labels = np.array([classes.index(file.parent.name) for file in files])
    everything = np.arange(len(files))
    if ready:
        first, second, last = (everything[parts == part] for part in _PARTS)
    else:
        first, last = stratified(labels, everything, 0.2, seed + 1)
        second = np.array([], dtype=np.int64)
    if not len(second):
        first, second = stratified(labels, first, valid, seed)

    def read(index: int) -> np.ndarray:
        return soundfile.read(files[index], dtype="float32", always_2d=True)[0]

    return labelled_task(
        read,
        labels,
        (first, second, last),
        classes,
        path.name,
        str(path),
        {"source": str(path), "sampling": f"{rate} Hz", "tracks": tracks},
        lengths=lengths,
        statistics_from=256,
    )


def recordings(folder: Path) -> list[Path]:
    """All recordings one subfolder down, in the order of their names."""
    return sorted(file for file in folder.glob("*/*") if file.suffix.lower() in SUFFIXES)


def _check(files: list[Path]) -> tuple[np.ndarray, int, int]:
    """Lengths of all, and the sampling rate and number of tracks that they share."""
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
