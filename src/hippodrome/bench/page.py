"""What the benchmark shows: tables on the terminal, JSON, and the tables of docs/benchmarks.md."""

import json
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hippodrome.bench.rivals import PACKAGES as RIVALS
from hippodrome.bench.row import OURS, Timing
from hippodrome.bench.rows import every

PACKAGES = ("hippodrome", "torch", "numba", "triton", *RIVALS)
HEADS = ["phase", "contender", "median", "middle half", "over ours", "over the floor", "memory"]


def checkout() -> Path | None:
    """The folder of the checkout that this file lies in; None where the package is installed."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / ".git").exists() else None


def commit() -> str:
    """The commit that is measured, and whether files differ from it; empty where that cannot be told."""
    root, git = checkout(), shutil.which("git")
    if root is None or git is None:
        return ""
    name = subprocess.run(
        [git, "-C", root, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    changed = subprocess.run(
        [git, "-C", root, "status", "--porcelain", "--", "src"], capture_output=True, text=True, check=False
    )
    return name.stdout.strip() + (" with changes" if changed.stdout.strip() else "")


def machine() -> dict[str, Any]:
    """What ran: processor, cores, system, versions."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        name = models[0] if models else name
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return {
        "processor": name,
        "vector unit": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": found,
    }


def facts(command: str, notes: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """What is written beside the numbers."""
    return {
        "command": command,
        "commit": commit(),
        "date": date.today().isoformat(),
        "machine": machine(),
        "notes": dict(notes or {}),
    }


def groups(timings: Sequence[Timing]) -> dict[tuple[str, str, str, int], list[Timing]]:
    """Timings that stand beside each other: one row, one dtype, one shape, one number of threads."""
    found: dict[tuple[str, str, str, int], list[Timing]] = {}
    for timing in timings:
        shape = " ".join(f"{k}={v}" for k, v in timing.shape.items())
        key = "" if timing.row == "length" else shape
        found.setdefault((timing.row, timing.dtype, key, timing.threads), []).append(timing)
    return found


def title(row: str) -> str:
    """The heading of a row."""
    return every()[row].title if row in every() else row


def note(row: str) -> str:
    """What a reader of the row must know."""
    return every()[row].note if row in every() else ""


def time_text(seconds: float) -> str:
    """Seconds with three digits in a unit that suits them."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def bytes_text(count: int | None) -> str:
    """Bytes with three digits in a unit that suits them; nothing for None."""
    if count is None:
        return ""
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} B"


def lines(group: Sequence[Timing]) -> list[list[str]]:
    """The cells of a table: phase, contender, median, middle half, over ours, over the floor, memory.

    Ours is the first line of a phase that is of this library; where none is, the first line. The floor is
    the first floor of the phase.
    """
    first: dict[str, float] = {}
    floor: dict[str, float] = {}
    for t in group:
        first.setdefault(t.phase, t.median)
        if t.floor:
            floor.setdefault(t.phase, t.median)
    phases = list(first)
    for t in reversed(group):
        if t.contender.startswith(OURS):
            first[t.phase] = t.median
    return [
        [
            t.phase,
            t.contender,
            time_text(t.median),
            f"{time_text(t.low)} to {time_text(t.high)}",
            f"{t.median / first[t.phase]:.2f}",
            f"{t.median / floor[t.phase]:.2f}" if t.phase in floor else "",
            bytes_text(t.peak_bytes),
        ]
        for t in sorted(group, key=lambda t: phases.index(t.phase))
    ]


def text(timings: Sequence[Timing]) -> str:
    """The tables as plain text."""
    parts = []
    for (row, dtype, shape, threads), group in groups(timings).items():
        cells = [HEADS, *lines(group)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(HEADS))]
        parts.append(f"{title(row)} [{row}]  {dtype}  {shape}  threads={threads}")
        parts += [
            "  " + "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
        ]
        parts.append("")
    return "\n".join(parts)


def as_json(timings: Sequence[Timing], about: Mapping[str, Any]) -> str:
    """Everything, for a program."""
    return json.dumps({**about, "timings": [t._asdict() for t in timings]}, indent=2) + "\n"


def from_json(path: Path) -> tuple[list[Timing], dict[str, Any]]:
    """Timings of an earlier run, and what was written beside them. Raises ValueError for another file."""
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        return [Timing(**t) for t in whole.pop("timings")], whole
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{path} does not hold numbers of this benchmark; expected a file that `hippodrome bench --json` "
            "has written. Measure again, or name another."
        ) from None


def markdown(timings: Sequence[Timing], about: Mapping[str, Any]) -> str:
    """The page docs/benchmarks.md as the numbers make it."""
    of = about["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in of["versions"].items())
    out = [
        "# Benchmarks",
        "",
        "The tables of this page are written by the benchmark (`--markdown`).",
        "",
        f"- command: `{about['command']}`",
        f"- commit: {about.get('commit') or 'not told: measured outside a checkout'}",
        f"- date: {about['date']}",
        f"- machine: {of['processor']}, {of['vector unit']}, GPU: {of.get('gpu', 'none')}, {of['system']}",
        f"- versions: {versions}",
        "",
        "How it is measured: contenders stand side by side and take turns, so that a slow moment of the "
        "machine hits all of them; their answers are compared before their times are. Every contender gets "
        "the same number of threads and the same settings of glibc's allocator "
        "(`MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=268435456`), without "
        "which large temporaries time the page faults. One uncounted call comes first, so compilation is "
        "not in the times. The median stands with the middle half of the runs. Ratios are over Hippodrome's "
        "own line of the phase, and over the floor: above 1 the contender takes longer. A contender in "
        "*italics* is a floor, not a rival: work that the others cannot avoid. Memory is the most that a "
        "process of the contender alone, whose freed memory goes back at once, held beyond its inputs.",
    ]
    notes: Mapping[str, Sequence[str]] = about.get("notes", {})
    seen = None
    for (row, dtype, shape, threads), group in groups(timings).items():
        if row != seen:
            out += ["", f"## {title(row)}", "", note(row)]
            out += [f"\nNote: {sentence}." for sentence in notes.get(row, [])]
            seen = row
        where = f"{dtype}, {shape + ', ' if shape else ''}{threads} thread{'s' if threads > 1 else ''}:"
        out += ["", where, ""]
        out += ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
        floors = {t.contender for t in group if t.floor}
        for cells in lines(group):
            cells[1] = f"*{cells[1]}*" if cells[1] in floors else cells[1]
            out.append("| " + " | ".join(cells) + " |")
    left = [row for row in notes if row not in {t.row for t in timings}]
    if left:
        out += ["", "## Not measured", ""]
        out += [f"- {title(row)} (`{row}`): {'; '.join(notes[row])}" for row in left]
    return "\n".join(out) + "\n"
