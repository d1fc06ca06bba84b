"""Two commits measured in turns: each checked out beside the other, by the measuring code of this one."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from hippodrome.bench.compare import joined
from hippodrome.bench.page import checkout
from hippodrome.bench.process import ALLOCATOR, in_process
from hippodrome.bench.row import Timing

HERE = "here"
"""What stands for the files of the checkout as they are, with what is not committed."""


class Measured(NamedTuple):
    """One commit: its timings, and rows that failed there with the reason."""

    commit: str
    timings: list[Timing]
    failed: dict[str, str]


def _git(root: Path, *words: str) -> str:
    git = shutil.which("git")
    if git is None:
        raise ValueError("comparing commits needs git, which is not on the PATH. Install it.")
    answer = subprocess.run([git, "-C", str(root), *words], capture_output=True, text=True, check=False)
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no word"])[-1]
        raise ValueError(f"git {words[0]}: {last}")
    return answer.stdout.strip()


def resolved(root: Path, name: str) -> str:
    """The whole name of a commit. Raises ValueError where there is none of this name."""
    try:
        return _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except ValueError:
        raise ValueError(
            f"there is no commit {name!r} in {root}; expected a branch, a tag, a hash, or {HERE!r} for the "
            "files as they are. See `git log`."
        ) from None


@contextmanager
def sources(root: Path, name: str, folder: Path) -> Iterator[Path]:
    """The folder to import a commit from, with the measuring code of this checkout laid over it.

    An older commit may have no such code, or other rows: what is compared must be measured alike.
    """
    if name == HERE:
        yield root / "src"
        return
    tree = folder / f"tree-{len(list(folder.iterdir()))}"
    _git(root, "worktree", "add", "--detach", "--force", str(tree), resolved(root, name))
    try:
        package = tree / "src" / "hippodrome"
        shutil.rmtree(package / "bench", ignore_errors=True)
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / "src" / "hippodrome" / "bench", package / "bench", ignore=skipped)
        yield tree / "src"
    finally:
        _git(root, "worktree", "remove", "--force", str(tree))


def measured(
    old: str,
    new: str,
    rows: Sequence[str],
    *,
    dtypes: Sequence[str],
    threads: int,
    seconds: float,
    least: int,
    rounds: int = 3,
    device: str = "cpu",
    tiny: bool = False,
    root: Path | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> tuple[Measured, Measured]:
    """Both commits over the same rows, one round of each after the other.

    Raises ValueError outside a checkout, and for a commit that there is not.
    """
    root = root or checkout()
    if root is None:
        raise ValueError("comparing commits needs a checkout of the repository; this package is installed.")
    for name in (old, new):
        if name != HERE:
            resolved(root, name)
    options = {"names": list(rows), "dtypes": list(dtypes), "device": device, "tiny": tiny}
    found: dict[int, list[list[Timing]]] = {0: [], 1: []}
    failed: dict[int, dict[str, str]] = {0: {}, 1: {}}
    with TemporaryDirectory(prefix="hippodrome-bench-") as folder:
        place = Path(folder)
        with sources(root, old, place) as before, sources(root, new, place) as after:
            for i in range(rounds):
                for side, (name, path) in enumerate(((old, before), (new, after))):
                    tell(f"round {i + 1} of {rounds}: {name}")
                    answer = in_process(
                        "rows",
                        threads,
                        {**options, "seconds": seconds / rounds, "least": least},
                        settings={**ALLOCATOR, "PYTHONPATH": str(path), "OMP_NUM_THREADS": str(threads)},
                        cwd=place,
                    )
                    found[side].append([Timing(**t) for t in answer["timings"]])
                    failed[side] |= answer["failed"]
    one, two = (Measured(name, joined(found[side]), failed[side]) for side, name in enumerate((old, new)))
    return one, two
