"""What the runner shows: a table on the terminal, JSON, and the page docs/benchmarks.md."""

import json
import platform
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.measure import Timing

PACKAGES = ("hippodrome", "torch", "numba", "accelerated-scan", "mambapy", "transformers", "s5-pytorch")

TITLES = {
    "selective-scan": "Selective scan (Mamba), float32",
    "diagonal-lti": "Diagonal time-invariant system (S4D), float32",
    "s4d-layer": "S4D, the whole layer, float32",
    "s5": "S5: one state for all channels, float32",
    "lru": "LRU, the whole layer, float32",
    "dplr-kernel": "The kernel of S4 (diagonal plus low rank), float32",
    "s4d-length": "Cost of a token by length: an S4D layer, float32",
    "s5-length": "Cost of a token by length: an S5 layer, float32",
    "decode-step": "One step of decoding beside attention with a cache, float32",
    "ssd": "SSD (Mamba-2), float32",
    "causal-conv": "Causal depthwise convolution, float32",
    "train-130m": "Training step of a Mamba of the 130m shape, float32, AdamW",
    "length": "Cost of training against length: a small Mamba over bytes",
    "stream": "Streaming a million bytes through the state",
}

NOTES = {
    "selective-scan": "Rivals: the eager scan of `accelerated-scan` and the one of `mambapy`, each with "
    "the discretization before it and the readout after it that our operator does inside. No gate on "
    "either side.",
    "diagonal-lti": "All from the layer's parameters, save the bare FFT convolution, which is given its "
    "kernel: it is what a convolutional form cannot go below. The textbook form builds the Vandermonde "
    "kernel, then convolves. At 64k there are two rows and 64 channels, for all alike, so that it fits.",
    "s4d-layer": "The system, GELU and the gated map across channels. The bare FFT convolution, given its "
    "kernel, stands for what a convolutional form cannot go below and does no map. The textbook form has our "
    "output map. A GRU of the same width stands beside it up to 4k tokens. At 64k there are two rows and 64 "
    "channels, for all alike: the textbook form holds d x n x t complex numbers several times.",
    "s5": "The system with its skip, n complex modes, without the output map: what the layer of `s5-pytorch` "
    "is, which has the same parameters. The floor is what the form cannot do without: the products B u and "
    "C x, and our scan between them. At 64k there are two rows for all alike.",
    "lru": "The system, GELU and the gated map. The floor is the products B u, C x and the map's own, and "
    "our scan. At 64k there are two rows for all alike.",
    "dplr-kernel": "From poles, low-rank columns and weights to a kernel of so many values, n pairs of "
    "poles. Beside it ours for a diagonal system of the same size, with no low-rank part to correct for.",
    "s4d-length": "The same number of tokens in many short rows and in few long ones: the ratios are those "
    "of the cost of a token.",
    "s5-length": "The same number of tokens in many short rows and in few long ones: the ratios are those "
    "of the cost of a token.",
    "decode-step": "One row, one token, the state overwritten in place. Attention has so many tokens in its "
    "cache of keys and values; the others' states do not grow.",
    "ssd": "Rival: the chunked form that `transformers` runs where no CUDA kernel fits, at the chunk of 64 "
    "that suits it best on a CPU. Attention of the same width stands beside it for scale.",
    "causal-conv": "Rivals: `F.conv1d` with one group a channel, in its own layout, and shifted copies.",
    "train-130m": "Rival: `MambaForCausalLM` of `transformers` with `use_mambapy=True`, of the same number "
    "of parameters. Each step is loss, backward, AdamW. Each contender in processes of its own, in turns; "
    "memory is the peak of the process. The matrix products alone are what no implementation in this "
    "precision avoids.",
    "length": "The same number of tokens in every step, cut into many short rows or few long ones. Time is "
    "for one token.",
    "stream": "Memory is how much more the process held at any later time than after the first tenth.",
}


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
        "threads at most": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": found,
    }


def groups(timings: Sequence[Timing]) -> dict[tuple[str, str, int], list[Timing]]:
    """Timings that stand beside each other: one row, one shape, one number of threads."""
    found: dict[tuple[str, str, int], list[Timing]] = {}
    for timing in timings:
        shape = " ".join(f"{k}={v}" for k, v in timing.shape.items())
        key = "" if timing.row == "length" else shape
        found.setdefault((timing.row, key, timing.threads), []).append(timing)
    return found


def time_text(seconds: float) -> str:
    """Seconds with three digits in a unit that suits them."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def lines(group: Sequence[Timing]) -> list[list[str]]:
    """The cells of a table: phase, contender, median, middle half, over ours, memory."""
    first = {}
    for timing in group:
        first.setdefault(timing.phase, timing.median)
    return [
        [
            t.phase,
            t.contender,
            time_text(t.median),
            f"{time_text(t.low)} to {time_text(t.high)}",
            f"{t.median / first[t.phase]:.2f}",
            "" if t.peak_bytes is None else f"{t.peak_bytes / 2**20:.0f} MiB",
        ]
        for t in sorted(group, key=lambda t: list(first).index(t.phase))
    ]


HEADS = ["phase", "contender", "median", "middle half", "over the first", "memory"]


def text(timings: Sequence[Timing]) -> str:
    """The tables as plain text."""
    parts = []
    for (row, shape, threads), group in groups(timings).items():
        cells = [HEADS, *lines(group)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(HEADS))]
        parts.append(f"{TITLES.get(row, row)}  {shape}  threads={threads}")
        parts += [
            "  " + "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
        ]
        parts.append("")
    return "\n".join(parts)


def as_json(timings: Sequence[Timing], command: str) -> str:
    """Everything, for a program."""
    whole = {
        "command": command,
        "date": date.today().isoformat(),
        "machine": machine(),
        "timings": [t._asdict() for t in timings],
    }
    return json.dumps(whole, indent=2) + "\n"


def from_json(path: Path) -> tuple[list[Timing], dict[str, Any]]:
    """Timings of an earlier run, and what was written beside them."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    return [Timing(**t) for t in whole.pop("timings")], whole


def markdown(timings: Sequence[Timing], facts: dict[str, Any]) -> str:
    """The page docs/benchmarks.md."""
    about = facts["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    out = [
        "# Benchmarks",
        "",
        "This page is written by the runner; change `benchmarks/page.py`, not this file.",
        "",
        f"- command: `{facts['command']}`",
        f"- date: {facts['date']}",
        f"- machine: {about['processor']}, {about['vector unit']}, {about['system']}",
        f"- versions: {versions}",
        "",
        "How it is measured: contenders stand side by side in one process and take turns, so that a slow "
        "moment of the machine hits all of them; their answers are compared before their times are. Every "
        "contender gets the same number of threads and the same settings of glibc's allocator "
        "(`MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=268435456`), without "
        "which large temporaries time the page faults. One uncounted call comes first, so compilation is "
        "not in the times. The median stands with the middle half of the runs. Ratios are over the first "
        "line of a phase: above 1 the contender takes longer than Hippodrome. A contender in *italics* is a "
        "floor, not a rival: work that the others cannot avoid.",
    ]
    seen = None
    for (row, shape, threads), group in groups(timings).items():
        if row != seen:
            out += ["", f"## {TITLES.get(row, row)}", "", NOTES.get(row, "")]
            seen = row
        out += ["", f"{shape + ', ' if shape else ''}{threads} thread{'s' if threads > 1 else ''}:", ""]
        out += ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
        floors = {t.contender for t in group if t.floor}
        for cells in lines(group):
            cells[1] = f"*{cells[1]}*" if cells[1] in floors else cells[1]
            out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"
