"""The runner: `python -m benchmarks [--rows a,b] [--threads 1,2] [--json FILE] [--markdown FILE]`.

It starts itself anew under allocator settings that are the same for every contender, since on glibc large
temporaries would otherwise time page faults.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.measure import Pace, Timing, measure_row
from benchmarks.page import TITLES, as_json, from_json, markdown, text

ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
MODEL_ROWS = ("train-130m", "length", "stream", "decode-step")
TINY_MODEL = {"d_model": 16, "depth": 1}


def settled(threads: list[int]) -> None:
    """Run anew under the allocator's settings, unless they are there."""
    wanted = {**ALLOCATOR, "OMP_NUM_THREADS": str(max(threads))}
    if os.name == "nt" or all(os.environ.get(k) == v for k, v in wanted.items()):
        return
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]], {**os.environ, **wanted})


def model_row(name: str, threads: int, tiny: bool, pace: Pace) -> list[Timing]:
    """One of the rows that measure more than calls of one function in turns."""
    from benchmarks import models, structured

    if name == "decode-step":
        widths, contexts = ([16], [8]) if tiny else ([64, 256], [1024, 4096, 16384])
        return structured.decode_rows(threads, widths, contexts, pace)
    if name == "train-130m":
        shape = {"vocab": 50280, "d_model": 768, "depth": 24, "b": 1, "t": 1024}
        if tiny:
            shape = {"vocab": 64, **TINY_MODEL, "b": 1, "t": 16}
        return models.training_rows(threads, shape, steps=2, rounds=1 if tiny else 2)
    if name == "length":
        shape = TINY_MODEL if tiny else {"d_model": 256, "depth": 4}
        return models.length_rows(threads, shape, most=64 if tiny else 32768, rounds=2 if tiny else 5)
    shape = TINY_MODEL if tiny else {"d_model": 256, "depth": 4}
    tokens, piece, single = (512, 64, 8) if tiny else (1_000_000, 4096, 2000)
    return models.stream_rows(threads, shape, tokens, piece, single)


def run(names: list[str], threads: list[int], pace: Pace, tiny: bool) -> list[Timing]:
    """All rows asked for; each is shown as soon as it is there."""
    import torch

    from benchmarks import ops, structured

    rows = {**ops.ROWS, **structured.ROWS}
    found: list[Timing] = []
    for name in names:
        for count in threads:
            torch.set_num_threads(count)
            if name in MODEL_ROWS:
                parts = [model_row(name, count, tiny, pace)]
            else:
                build, shapes, small = rows[name]
                parts = (
                    measure_row(name, shape, build(**shape), count, pace)
                    for shape in ([small] if tiny else shapes)
                )
            for part in parts:
                sys.stdout.write(text(part) + "\n")
                sys.stdout.flush()
                found += part
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default=",".join(TITLES), help="names with commas: " + ", ".join(TITLES))
    parser.add_argument("--threads", default=str(os.cpu_count() or 1), help="counts with commas: 1,2")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="for each phase of a row, at least --least rounds"
    )
    parser.add_argument("--least", type=int, default=3, help="rounds of each phase, however long they take")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that everything runs")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    parser.add_argument("--show", type=Path, help="measure nothing: read numbers written by --json")
    arguments = parser.parse_args()
    chosen = {"rows": arguments.rows, "threads": arguments.threads, "seconds": arguments.seconds}
    chosen["least"] = arguments.least
    words = [f"--{name} {value}" for name, value in chosen.items() if value != parser.get_default(name)]
    command = f'make bench ARGS="{" ".join(words)}"' if words else "make bench"
    if arguments.show:
        timings, facts = from_json(arguments.show)
    else:
        names = [name.strip() for name in arguments.rows.split(",") if name.strip()]
        unknown = [name for name in names if name not in TITLES]
        if unknown:
            parser.error(f"there is no row {unknown[0]!r}; there is {', '.join(TITLES)}")
        threads = [int(count) for count in arguments.threads.split(",")]
        settled(threads)
        timings = run(names, threads, Pace(arguments.seconds, arguments.least), arguments.tiny)
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(as_json(timings, command), encoding="utf-8")
        import json

        facts = json.loads(as_json([], command))
    if arguments.show:
        sys.stdout.write(text(timings) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text(markdown(timings, facts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
