"""One measurement in a process of its own, so that its peak memory is its own.

``python -m hippodrome.bench.worker JOB '{"option": ...}'`` prints one JSON object on its last line.
"""

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hippodrome.bench import language
from hippodrome.bench.measure import PHASES
from hippodrome.bench.row import Pace, Where
from hippodrome.bench.rows import find
from hippodrome.bench.run import measure


def resident(key: str = "VmHWM") -> int | None:
    """Bytes this process holds (VmRSS) or held at most (VmHWM); None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) * 1024
    if key == "VmRSS":
        return None
    try:
        import resource
    except ImportError:
        return None
    # macOS counts bytes here.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peaks(
    row: str, shape: dict[str, int], contender: str, device: str, dtype: str, warm: dict[str, int]
) -> dict[str, Any]:
    """The most that one contender of a row held in each phase beyond what the process held before.

    None where the system does not say. Kernels are compiled at the shape ``warm`` first.
    """
    found = find(row)
    where = Where(torch.device(device), getattr(torch, dtype))
    assert found.build is not None
    answer: dict[str, Any] = {}
    # A rival that only some shapes have cannot be warmed up at another; it has no kernel of ours to compile.
    small = [c for c in found.build(where, **warm) if c.name == contender or c.units > 1]
    for c in small:
        for prepare in PHASES.values():
            if c.leaves or prepare is PHASES["forward"]:
                prepare(c)()
    del small
    (chosen,) = (c for c in found.build(where, **shape) if c.name == contender)
    for phase, prepare in PHASES.items():
        if phase == "forward" or chosen.leaves:
            for leaf in chosen.leaves:
                leaf.grad = None
            gc.collect()
            answer[phase] = _peak_of(prepare(chosen), where.device)
    return answer


def _peak_of(call: Callable[[], Any], device: torch.device) -> int | None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    reset.write_text("5")  # sets the high-water mark to what is held now
    held = resident("VmRSS")
    call()
    most = resident()
    return None if held is None or most is None else max(0, most - held)


def rows(
    names: list[str], dtypes: list[str], device: str, threads: int, tiny: bool, seconds: float, least: int
) -> dict[str, Any]:
    """Rows of the benchmark, as a comparison of two commits wants them; what failed is told by name."""
    timings, failed = [], {}
    for name in names:
        try:
            row = find(name)
            for dtype in dtypes:
                if dtype in row.dtypes:
                    where = Where(torch.device(device), getattr(torch, dtype))
                    parts = measure(row, where, threads, Pace(seconds, least), tiny=tiny, memory=False)
                    timings += [t._asdict() for part in parts for t in part]
        except (ValueError, ImportError, AttributeError, TypeError) as error:
            failed[name] = f"{type(error).__name__}: {error}"
    return {"timings": timings, "failed": failed}


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    "training_step": language.training_step,
    "training_products": language.training_products,
    "prefill": language.prefill_seconds,
    "prefill_products": language.prefill_products,
    "decode": language.decode_seconds,
    "read": language.read_seconds,
    "lengths": language.lengths,
    "stream": language.stream,
    "peaks": peaks,
    "rows": rows,
}


def main() -> None:
    """Run the job named on the command line."""
    job, options = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(options["threads"])
    if job != "rows":
        del options["threads"]
    found = JOBS[job](**options)
    if "peak_bytes" in found:
        found["peak_bytes"] = resident()
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
