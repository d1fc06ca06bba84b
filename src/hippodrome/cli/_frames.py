"""Pictures of what a video model imagines, for the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hippodrome.runs import Run


def write_frames(run: "Run", out: Path, videos: int = 1) -> None:
    """Write test videos of the run's own data and, below each, its open-loop continuation, as a PNG.

    Raises:
        ValueError: another kind of file, a folder that is not there, more videos than there are, or the data
            is gone.
    """
    import torch

    from hippodrome.analyze.frames import Strip, continued, png
    from hippodrome.cli._data import task_of
    from hippodrome.train.checkpoint import write_atomically

    if out.suffix.lower() != ".png":
        raise ValueError(f"frames are written as a .png picture; got {out}. Name such a file.")
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent} for {out.name}; make it, or name one")
    task = task_of(run, None, {})
    count = len(task.test)  # type: ignore[arg-type]
    if videos > count:
        raise ValueError(f"the test part has {count} videos; got --clips {videos}. Ask for fewer.")
    model: Any = run.model
    strips = [continued({"": model}, task.test[i].frames) for i in range(videos)]
    picture = png(Strip(torch.cat([strip.frames for strip in strips]), strips[0].context))
    write_atomically(out, lambda file: file.write(picture))
