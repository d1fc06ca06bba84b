"""Processes that measure: under allocator settings that are the same for all, or under none."""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
"""On glibc, large temporaries would otherwise time page faults instead of arithmetic."""
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""On glibc, every tensor is then memory of its own, which goes back to the system when it is freed."""


def under(
    settings: Mapping[str, str], words: Sequence[str], *, without: Sequence[str] = ()
) -> list[str] | None:
    """A command under these variables of the environment; None where the system has no ``env``."""
    env = shutil.which("env")
    if env is None:
        return None
    taken = [word for name in without for word in ("-u", name)]
    return [env, *taken, *(f"{k}={v}" for k, v in settings.items()), *words]


def settled(words: Sequence[str], threads: int) -> list[str] | None:
    """This Python on ``words`` under the allocator's settings; None where they would say nothing."""
    if platform.system() != "Linux":
        return None
    return under({**ALLOCATOR, "OMP_NUM_THREADS": str(threads)}, [sys.executable, *words])


def in_process(
    job: str,
    threads: int,
    options: Mapping[str, Any],
    *,
    plain: bool = False,
    settings: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> dict[str, Any]:
    """What ``hippodrome.bench.worker`` answers for a job; ValueError with its last words if it fails.

    ``plain`` takes the allocator's settings away and lets memory that is freed go back to the system, as
    counting it needs. ``settings`` are more variables for the process.
    """
    options = {"threads": threads, **options}
    words = [sys.executable, "-m", "hippodrome.bench.worker", job, json.dumps(options)]
    if plain or settings:
        wanted = {**(RETURNED if plain else {}), **(settings or {})}
        changed = under(wanted, words, without=list(ALLOCATOR) if plain else [])
        if changed is None and settings:
            raise ValueError("this system has no `env` to run a process under other settings")
        words = changed or words
    answer = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if answer.returncode:
        tail = answer.stderr.strip().splitlines()[-1:] or ["no word: killed, perhaps for memory"]
        raise ValueError(f"{job} {options}: exit code {answer.returncode}: {tail[0]}")
    result: dict[str, Any] = json.loads(answer.stdout.strip().splitlines()[-1])
    return result
