"""Running rows: what is measured where, memory beside it, and a sentence for what is not."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from hippodrome.bench import rivals
from hippodrome.bench.measure import measure_row
from hippodrome.bench.process import in_process
from hippodrome.bench.row import Ask, Pace, Row, Timing, Where

NO_CUDA = "unmeasured: no CUDA device"


class Found(NamedTuple):
    """Timings, by row the sentences on what is missing, and the names of rows that broke."""

    timings: list[Timing]
    notes: dict[str, list[str]]
    failed: list[str]


def measure(
    row: Row, where: Where, threads: int, pace: Pace, *, tiny: bool = False, memory: bool = True
) -> Iterator[list[Timing]]:
    """The timings of one row, a list for each of its shapes."""
    if row.measure is not None:
        yield row.measure(Ask(row.name, threads, pace, where, tiny, row.kind))
        return
    assert row.build is not None
    for shape in [row.tiny] if tiny else row.shapes:
        contenders = row.build(where, **shape)
        found = measure_row(row.name, shape, contenders, threads, pace, where)
        if memory and row.memory:
            units = {c.name: c.units for c in contenders if not c.floor}
            # Ended before other processes start: what these hold must not crowd them out.
            del contenders
            found = [
                _with_peak(t, peaks) for peaks in [_peaks(row, where, shape, units, threads)] for t in found
            ]
        yield found


def _peaks(
    row: Row, where: Where, shape: dict[str, int], units: dict[str, int], threads: int
) -> dict[tuple[str, str], int | None]:
    """(phase, contender) -> the most that the contender's own process held beyond its inputs."""
    found: dict[tuple[str, str], int | None] = {}
    for name, count in units.items():
        facts = {"row": row.name, "shape": shape, "contender": name, "warm": row.tiny}
        facts |= {"device": str(where.device), "dtype": where.word}
        for phase, peak in in_process("peaks", threads, facts, plain=True).items():
            found[phase, name] = None if peak is None else round(peak / count)
    return found


def _with_peak(timing: Timing, peaks: dict[tuple[str, str], int | None]) -> Timing:
    phase = timing.phase.removesuffix(", per token")
    return timing._replace(peak_bytes=peaks.get((phase, timing.contender)))


def why_not(row: Row, device: torch.device) -> str | None:
    """Why a row cannot be measured on this machine or this device; None where it can."""
    if row.level == "gpu":
        return None if torch.cuda.is_available() else NO_CUDA
    if device.type == "cuda" and row.level == "model":
        return "unmeasured: this row is for the CPU; the rows of the level gpu time models on a GPU"
    return None


def run(
    rows: Sequence[Row],
    threads: Sequence[int],
    pace: Pace,
    *,
    device: torch.device,
    dtypes: Sequence[str] = (),
    tiny: bool = False,
    memory: bool = True,
    show: Callable[[list[Timing]], None] = lambda timings: None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> Found:
    """All these rows in the dtypes that they take (of those asked for); each is shown once it is there.

    A row that breaks is told and named in ``failed``; the others go on.
    """
    found = Found([], {}, [])

    def note(row: Row, sentence: str) -> None:
        if sentence not in found.notes.setdefault(row.name, []):
            found.notes[row.name].append(sentence)
            tell(f"{row.name}: {sentence}")

    for row in rows:
        if (reason := why_not(row, device)) is not None:
            note(row, reason)
            continue
        for sentence in rivals.absent(row.rivals):
            note(row, sentence)
        place = torch.device("cuda") if row.level == "gpu" else device
        wanted = [dtype for dtype in row.dtypes if not dtypes or dtype in dtypes]
        for dtype in dtypes:
            if dtype not in row.dtypes:
                note(row, f"unmeasured in {dtype}: the row is there in {', '.join(row.dtypes)}")
        for dtype in wanted:
            # On a GPU the number of the processor's threads says nothing.
            for count in threads if place.type == "cpu" else threads[:1]:
                torch.set_num_threads(count)
                where = Where(place, getattr(torch, dtype))
                try:
                    for part in measure(row, where, count, pace, tiny=tiny, memory=memory):
                        found.timings.extend(part)
                        show(part)
                except (ValueError, RuntimeError, ImportError) as error:
                    note(row, f"failed in {dtype}: {' '.join(str(error).split())}")
                    found.failed.append(row.name)
    return found
