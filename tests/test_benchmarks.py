"""The benchmark runner at sizes that show only that it runs, and the page it writes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks.measure import Contender, Pace, Timing, disagreement, measure_row, middle, take_turns
from benchmarks.page import from_json, lines, markdown, time_text

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """The runner in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--threads", "1", "--seconds", "0.05", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_rows_of_ours_run_and_write_a_page(tmp_path: Path) -> None:
    rows = "diagonal-lti,causal-conv,length,stream,s4d-layer,lru,dplr-kernel,s4d-length,s5-length,decode-step"
    numbers, page = tmp_path / "b.json", tmp_path / "b.md"
    answer = run("--rows", rows, "--json", str(numbers), "--markdown", str(page))
    assert answer.returncode == 0, answer.stderr
    timings, facts = from_json(numbers)
    assert {t.row for t in timings} == set(rows.split(","))
    assert facts["command"].startswith("make bench ARGS=")
    assert str(tmp_path) not in page.read_text()
    assert "*FFT convolution, kernel given*" in page.read_text()


@pytest.mark.slow
def test_rows_with_rivals_run(tmp_path: Path) -> None:
    for package in ("accelerated_scan", "mambapy", "s5", "transformers"):
        pytest.importorskip(package, reason=f"{package} comes with the group bench (make bench)")
    answer = run("--rows", "selective-scan,ssd,s5,train-130m", "--json", str(tmp_path / "b.json"))
    assert answer.returncode == 0, answer.stderr
    timings = json.loads((tmp_path / "b.json").read_text())["timings"]
    assert {"transformers, mambapy", "mambapy pscan", "s5-pytorch"} <= {t["contender"] for t in timings}


def test_unknown_row_is_named() -> None:
    answer = run("--rows", "selective-scam")
    assert answer.returncode == 2
    assert "selective-scam" in answer.stderr


def test_contenders_take_turns() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    taken = take_turns(calls, Pace(seconds=0, least=2))
    assert order == list("ababab")  # one uncounted round first
    assert [len(times) for times in taken.values()] == [2, 2]


def test_a_contender_that_answers_differently_is_refused() -> None:
    x = torch.ones(3, requires_grad=True)
    ours = Contender("ours", lambda: 2 * x, [x])
    theirs = Contender("theirs", lambda: 3 * x, [x])
    floor = Contender("floor", lambda: 7 * x, [x], floor=True)
    assert disagreement([ours, theirs, floor]) == {"theirs": pytest.approx(0.5)}
    with pytest.raises(ValueError, match="theirs answers differently"):
        measure_row("row", {}, [ours, theirs], 1, Pace(seconds=0))


def test_middle_is_median_and_quartiles() -> None:
    assert middle([4.0, 1.0, 3.0, 2.0, 5.0]) == (3.0, 2.0, 4.0)
    assert middle([7.0]) == (7.0, 7.0, 7.0)


def test_page_shows_ratios_over_the_first_line_of_a_phase() -> None:
    first = Timing("ssd", "forward", "hippodrome", {"b": 1}, 2, 0.002, 0.001, 0.003, 5)
    second = first._replace(contender="rival", median=0.005, peak_bytes=3 * 2**20)
    assert [cells[4] for cells in lines([first, second])] == ["1.00", "2.50"]
    facts = {"command": "make bench", "date": "d", "machine": {"processor": "p", "vector unit": "v"}}
    facts["machine"] |= {"system": "s", "versions": {"torch": "1"}}
    assert "| forward | rival | 5 ms | 1 ms to 3 ms | 2.50 | 3 MiB |" in markdown([first, second], facts)


@pytest.mark.parametrize(("seconds", "shown"), [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (4e-5, "40 us")])
def test_times_are_told_in_units_that_suit_them(seconds: float, shown: str) -> None:
    assert time_text(seconds) == shown
