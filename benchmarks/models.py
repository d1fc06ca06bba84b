"""Rows of whole models, each in a process: a training step beside a rival's, cost by length, streaming."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import Timing, middle

ROOT = Path(__file__).resolve().parents[1]


def in_process(job: str, threads: int, **options: Any) -> dict[str, Any]:
    """What ``benchmarks.worker`` answers for a job; ValueError with its last words if it fails."""
    words = [sys.executable, "-m", "benchmarks.worker", job, json.dumps({"threads": threads, **options})]
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if answer.returncode:
        tail = answer.stderr.strip().splitlines()[-1:] or ["no word: killed, perhaps for memory"]
        raise ValueError(f"{job} {options}: exit code {answer.returncode}: {tail[0]}")
    result: dict[str, Any] = json.loads(answer.stdout.strip().splitlines()[-1])
    return result


def training_rows(threads: int, shape: dict[str, int], steps: int, rounds: int) -> list[Timing]:
    """A training step of ours, of transformers' model with mambapy's scan, and its matrix products alone.

    The contenders take turns as processes, since the two models do not fit in memory together.
    """
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, int | None] = {}
    sizes: dict[str, int] = {}
    for _ in range(rounds):
        for who in ("hippodrome", "transformers, mambapy"):
            found = in_process("training_step", threads, who=who, steps=steps, **shape)
            seconds.setdefault(who, []).extend(found["seconds"])
            peaks[who] = max(peaks.get(who) or 0, found["peak_bytes"] or 0) or None
            sizes[who] = found["parameters"]
        found = in_process("products", threads, steps=steps, **shape)
        seconds.setdefault("matrix products alone", []).extend(found["seconds"])
    if len(set(sizes.values())) > 1:
        raise ValueError(f"the models are not of one size: {sizes}")
    rows = []
    for who, taken in seconds.items():
        mid, low, high = middle(taken)
        floor = who == "matrix products alone"
        rows.append(
            Timing(
                "train-130m",
                "training step",
                who,
                shape,
                threads,
                mid,
                low,
                high,
                len(taken),
                floor,
                peaks.get(who),
            )
        )
    return rows


def length_rows(threads: int, shape: dict[str, int], most: int, rounds: int) -> list[Timing]:
    """Time of a training step with ``most`` tokens in it, as many short rows and as few long ones."""
    sizes = []
    t = most
    while t >= max(1, most // 32):
        sizes.append([most // t, t])
        t //= 2
    sizes.reverse()
    found = in_process("lengths", threads, shapes=sizes, rounds=rounds, **shape)
    rows = []
    for (b, t), taken in zip(sizes, found["seconds"], strict=True):
        mid, low, high = middle([s / (b * t) for s in taken])
        name, size = f"hippodrome, t={t}", {**shape, "b": b, "t": t}
        rows.append(
            Timing(
                "length",
                "per token of a step",
                name,
                size,
                threads,
                mid,
                low,
                high,
                rounds,
            )
        )
    return rows


def stream_rows(threads: int, shape: dict[str, int], tokens: int, piece: int, single: int) -> list[Timing]:
    """Streaming through the state: seconds a token, and how much the memory held has grown on the way."""
    found = in_process("stream", threads, tokens=tokens, piece=piece, single=single, **shape)
    held = [h for h in found["held_bytes"] if h is not None]
    growth = max(held) - min(held) if held else None
    in_pieces = found["seconds"][0] / found["tokens"]
    one = found["seconds_single"] / single
    common = {**shape, "tokens": found["tokens"]}
    return [
        Timing(
            "stream",
            "memory grown, per token",
            f"hippodrome, pieces of {piece}",
            common,
            threads,
            in_pieces,
            in_pieces,
            in_pieces,
            1,
            False,
            growth,
        ),
        Timing("stream", "per token", "hippodrome, one by one", common, threads, one, one, one, 1),
    ]
