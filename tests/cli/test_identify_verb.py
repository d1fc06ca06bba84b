"""`hippodrome identify`: equations and matrices from a table, its picture, and every fault in a sentence."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hippodrome.analyze.sindy import Law, library
from hippodrome.data.dynamics import integrate, lotka_volterra
from hippodrome.data.trajectories import read_trajectories

LAW = lotka_volterra(0.5, 0.75, 0.75, 0.5)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trajectories of prey and hunters, of 80 and 60 rows."""
    path = tmp_path_factory.mktemp("states") / "field.csv"
    lines = ["unique_id,t,prey,hunters"]
    for name, start, rows in (("a", [1.0, 2.0], 80), ("b", [2.5, 1.0], 60)):
        for i, (x, y) in enumerate(integrate(LAW, np.array(start), 0.1, rows - 1)):
            lines.append(f"{name},{0.1 * i:.2f},{x:.12f},{y:.12f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_equations_are_found_and_drawn(cli: Callable, states: Path, tmp_path: Path) -> None:
    picture = tmp_path / "law.png"
    answer = cli("identify", states, "--threshold", "0.05", "--png", picture)
    assert answer.code == 0, answer.err
    assert re.search(r"^dprey/dt = 0.5\d* prey - 0.75\d* prey hunters$", answer.out, re.M)
    assert "dhunters/dt = -0.5 hunters + 0.75 prey hunters\n" in answer.out
    assert "140 rows in 2 trajectories, a step of 0.1\n" in answer.out
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    told = cli("identify", states, "--threshold", "0.05", "--json").json()
    assert told["powers"][4] == [1, 1]
    assert told["coefficients"][0][4] == pytest.approx(-0.75, abs=1e-3)
    assert min(told["r2"]) > 0.9999
    assert told["dt"] == pytest.approx(0.1)


def test_a_law_in_seconds_of_dates_is_followed_row_by_row(
    cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hourly.csv"
    lines = [f"2024-01-01 {hour:02d}:00,{np.exp(-hour / 24):.9f}" for hour in range(24)]
    path.write_text("\n".join(["ds,x", *lines]) + "\n", encoding="utf-8")
    asked = []

    def counted(self: Law, states: np.ndarray) -> np.ndarray:
        asked.append(1)
        return library(states, self.powers) @ self.coefficients.T

    monkeypatch.setattr(Law, "rates", counted)
    told = cli("identify", path, "--degree", "1", "--threshold", "1e-6", "--json").json()
    assert told["unit"] == "seconds"
    assert told["coefficients"][0][1] == pytest.approx(-1 / 86400, rel=1e-3)
    assert len(asked) < 1000
    lost = cli("identify", path, "--degree", "1")
    assert lost.code == 2
    assert "Give a lower --threshold, or --dt 1 to count time in rows" in lost.err
    assert lost.err.count("\n") == 1


def test_a_map_of_delays_is_found_and_told(cli: Callable, states: Path) -> None:
    told = cli("identify", states, "--method", "dmd", "--delays", "3", "--rank", "6", "--json").json()
    a, b = read_trajectories(states).paths
    pairs = [(p[i : i + 3][::-1].ravel(), p[i + 3]) for p in (a, b) for i in range(len(p) - 3)]
    before, after = (np.stack(part) for part in zip(*pairs, strict=True))
    wanted = np.linalg.lstsq(before, after, rcond=None)[0].T
    np.testing.assert_allclose(before @ np.array(told["A"])[:2].T, before @ wanted.T, atol=1e-6)
    assert len(told["eigenvalues"]) == 6
    words = cli("identify", states, "--method", "dmd").out
    assert "\tprey(t)\thunters(t)\nprey(t+1)\t" in words
    assert "eigenvalue, size" in words


def test_havok_reads_one_measurement(cli: Callable, tmp_path: Path) -> None:
    path = tmp_path / "wave.csv"
    t = np.arange(400) * 0.05
    wave = np.cos(t) + 0.5 * np.sin(2.3 * t)
    path.write_text("x\n" + "\n".join(f"{v:.15f}" for v in wave) + "\n", encoding="utf-8")
    answer = cli("identify", path, "--method", "havok", "--dt", "0.05", "--delays", "20", "--rank", "4")
    assert answer.code == 0, answer.err
    assert "dv3/dt\t" in answer.out
    assert "the last of 4 coordinates forces the others" in answer.out


def test_dates_count_seconds_and_rows_count_themselves(tmp_path: Path) -> None:
    path = tmp_path / "dated.csv"
    path.write_text("ds,x\n2024-01-01 00:00,1\n2024-01-01 00:01,2\n2024-01-01 00:02,4\n", encoding="utf-8")
    read = read_trajectories(path)
    assert (read.dt, read.unit, read.names) == (60.0, "seconds", ["x"])
    assert read_trajectories(path, dt=2.0).dt == 2.0
    path.write_text("x,y\n1,2\n3,4\n", encoding="utf-8")
    assert read_trajectories(path)[1:] == (["x", "y"], 1.0, "rows")


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        (None, [], "there is no file"),
        ("t,x\n0,1\n", [], "expected two rows of a trajectory or more; got one"),
        ("t,x\n0,1\n1,2\n3,4\n4,5\n", [], "row 3 .*column 't': .*one step, 1 as in most.* of 2 to '3'"),
        ("t,x\n0,1\n1,2\n1,4\n2,5\n3,6\n", [], "row 3 .*got a step of 0 to '1'"),
        ("t,x\n0,1\n1,\n2,4\n", [], "row 2 .*column 'x': expected a number in each row; got a missing one"),
        ("t,x\n0,1\n1,high\n2,4\n", [], "row 2 .*column 'x': expected a number; got 'high'"),
        ("t,x\n0,1\n1,2\n2,3\n", [], "over five rows of a trajectory, and none here has as many"),
        ("t\n0\n1\n", [], "expected a column of states; got 't' alone"),
        ("t,x\n0,1\n1,2\n", ["--columns", "z"], "expected a column 'z'"),
        ("t,x\n0,1\n1,2\n", ["--columns", "x,x"], "'x' was named twice"),
        (
            "t,x\n" + "".join(f"{i},{i * i}\n" for i in range(9)),
            ["--threshold", "nan"],
            "0 or more; got 2 and nan",
        ),
        ("t,x\n0,1\n1,2\n", ["--time", "clock"], "expected a column 'clock'"),
        ("t,x\n0,1\n1,2\n", ["--dt", "-1"], "is a positive number; got -1"),
        ("t,x\n0,1\n1,2\n", ["--method", "magic"], "one of sindy, dmd, havok; got 'magic'"),
        ("t,x\n0,1\n1,2\n", ["--rank", "2"], "sindy has no --rank; it takes --degree and --threshold"),
        ("t,x,y\n0,1,1\n1,2,2\n", ["--method", "havok"], r"got 2 columns \(x, y\) and 1 trajectories"),
        ("t,x\n0,1\n1,2\n", ["--png", "law.pdf"], "names a .png file"),
        (
            "x\n1\n2\n3\n4\n5\n6\n",
            ["--degree", "4"],
            "5 terms of degree 4 take as many.* got 2",
        ),
    ],
)
def test_bad_input_is_a_sentence(
    cli: Callable, tmp_path: Path, text: str | None, words: list[str], said: str
) -> None:
    path = tmp_path / "bad.csv"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    answer = cli("identify", path, *words)
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert re.search(said, answer.err), answer.err
    assert answer.out == ""
