"""The tables: ratios over ours and over the floor, what is told beside them, and files read back."""

import json
from pathlib import Path

import pytest

from hippodrome.bench.page import as_json, bytes_text, facts, from_json, lines, markdown, text, time_text
from hippodrome.bench.row import Timing

FIRST = Timing("ssd", "forward", "hippodrome", {"b": 1}, 2, 0.002, 0.001, 0.003, 5)
RIVAL = FIRST._replace(contender="rival", median=0.005, peak_bytes=3 * 2**20)
FLOOR = FIRST._replace(contender="copy", median=0.001, floor=True)
ABOUT = {
    "command": "hippodrome bench",
    "date": "d",
    "commit": "abc",
    "machine": {"processor": "p", "vector unit": "v", "system": "s", "versions": {"torch": "1"}},
    "notes": {"ssd": ["x is not installed"], "gpu-ssd": ["unmeasured: no CUDA device"]},
}


def test_ratios_are_over_ours_and_over_the_floor() -> None:
    cells = lines([RIVAL, FIRST, FLOOR])  # ours need not come first
    assert [(c[1], c[4], c[5]) for c in cells] == [
        ("rival", "2.50", "5.00"),
        ("hippodrome", "1.00", "2.00"),
        ("copy", "0.50", "1.00"),
    ]
    assert [c[5] for c in lines([FIRST, RIVAL])] == ["", ""]


def test_the_page_holds_what_a_reader_needs() -> None:
    page = markdown([FIRST, RIVAL, FLOOR], ABOUT)
    assert "| forward | rival | 5 ms | 1 ms to 3 ms | 2.50 | 5.00 | 3 MiB |" in page
    assert "| forward | *copy* |" in page
    assert "commit: abc" in page
    assert "Note: x is not installed." in page
    assert "(`gpu-ssd`): unmeasured: no CUDA device" in page
    assert "float32, b=1, 2 threads:" in page


def test_dtypes_and_threads_stand_apart() -> None:
    shown = text([FIRST, FIRST._replace(dtype="bfloat16"), FIRST._replace(threads=1)])
    assert shown.count("[ssd]") == 3


def test_a_file_is_read_back_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    about = facts("hippodrome bench", {"ssd": ["a note"]})
    file.write_text(as_json([FIRST, RIVAL], about))
    timings, found = from_json(file)
    assert timings == [FIRST, RIVAL]
    assert found == about
    assert found["machine"]["versions"]["torch"][0].isdigit()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"timings": [{"row": "x"}]}', '{"timings": 3}', "\xff"])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "other.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match="does not hold numbers of this benchmark"):
        from_json(file)


def test_older_files_without_a_dtype_are_read(tmp_path: Path) -> None:
    old = {k: v for k, v in FIRST._asdict().items() if k not in ("dtype", "peak_bytes", "floor")}
    file = tmp_path / "old.json"
    file.write_text(json.dumps({"timings": [old]}))
    assert from_json(file)[0] == [FIRST]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (4e-5, "40 us"), (5e-9, "5 ns")]
)
def test_times_are_told_in_units_that_suit_them(seconds: float, shown: str) -> None:
    assert time_text(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(None, ""), (12, "12 B"), (1536, "1.5 KiB"), (3 << 30, "3 GiB")]
)
def test_bytes_are_told_in_units_that_suit_them(count: int | None, shown: str) -> None:
    assert bytes_text(count) == shown
