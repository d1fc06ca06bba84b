"""`hippodrome bench`: rows, files, comparisons and explanations from the command line, and its refusals."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

QUICK = ("--tiny", "--settled", "--threads", "1", "--seconds", "0", "--least", "1")


@pytest.fixture
def numbers(cli, tmp_path: Path) -> Path:
    """The file of a short run."""
    file = tmp_path / "folder" / "a.json"
    answer = cli("bench", "--rows", "causal-conv", "--dtype", "float32", *QUICK, "--json", file)
    assert answer.code == 0, answer.err
    assert "Causal depthwise convolution [causal-conv]" in answer.out
    return file


def changed(file: Path, to: Path, factor: float, half: float = 0.01) -> Path:
    """The same run with our lines so many times as slow, and little spread in both."""
    whole: dict[str, Any] = json.loads(file.read_text())
    for t in whole["timings"]:
        t["median"] *= factor if t["contender"] == "hippodrome" else 1
        t["low"], t["high"] = t["median"] * (1 - half), t["median"] * (1 + half)
    to.write_text(json.dumps(whole))
    return to


def test_rows_are_listed_without_measuring(cli) -> None:
    answer = cli("bench", "--list")
    assert answer.code == 0
    rows = {line.split("\t")[0]: line.split("\t") for line in answer.out.splitlines()}
    assert rows["ssd"][1:3] == ["op", "float32, bfloat16"]
    assert rows["gpu-ssd"][4] == "mamba-ssm, flash-linear-attention"
    assert {r[1] for r in rows.values()} == {"op", "layer", "model", "gpu"}
    assert len(cli("bench", "--list", "--level", "gpu").out.splitlines()) < len(rows)


def test_files_are_written_and_shown(cli, numbers: Path, tmp_path: Path) -> None:
    whole = json.loads(numbers.read_text())
    assert whole["command"].startswith("hippodrome bench --rows causal-conv")
    assert "folder" not in whole["command"]
    assert {t["contender"] for t in whole["timings"]} >= {"hippodrome", "F.conv1d", "a copy of as many bytes"}
    page = tmp_path / "page.md"
    answer = cli("bench", "--show", numbers, "--markdown", page)
    assert answer.code == 0
    assert "over the floor" in answer.out
    assert "*a copy of as many bytes*" in page.read_text()
    assert str(tmp_path) not in page.read_text()


def test_what_got_slower_is_named(cli, numbers: Path, tmp_path: Path) -> None:
    before = changed(numbers, tmp_path / "before.json", 1.0)
    slow, fast = (changed(numbers, tmp_path / f"{f}.json", f) for f in (1.5, 0.5))
    answer = cli("bench", "--compare", before, slow)
    assert answer.code == 0
    assert "causal-conv (hippodrome, forward, float32" in answer.out
    assert "1.50 times slower" in answer.out
    assert cli("bench", "--compare", before, slow, "--fail-above", 1.4).code == 1
    assert cli("bench", "--compare", before, slow, "--fail-above", 1.6).code == 0
    assert cli("bench", "--compare", before, fast, "--fail-above", 1.1).code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rows", "selective-scam"], "selective-scan"),
        (["--rows", ","], "--rows takes names"),
        (["--level", "ops"], "there is no level 'ops'"),
        (["--level", "gpu", "--rows", "ssd"], "no row of the level 'gpu'"),
        (["--threads", "two"], "--threads takes counts"),
        (["--threads", "0"], "--threads takes counts"),
        (["--dtype", "float16"], "--dtype is float32, bfloat16"),
        (["--show", "no-such.json"], "no-such.json"),
        (["--compare", "no-such.json", "nor-this.json"], "no-such.json"),
        (["--explain", "mambo"], "mambo"),
        (["--commits", "no-such-commit", "here", "--rows", "ssd"], "no-such-commit"),
        (["ssdd"], "'ssd'"),
    ],
)
def test_bad_input_is_refused_in_a_line(cli, words: list[str], said: str) -> None:
    answer = cli("bench", *words, "--settled")
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_without_a_gpu_its_rows_are_told_and_only_asking_for_them_fails(cli, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for words in (["--level", "gpu"], ["--device", "cuda"], ["--rows", "gpu-ssd,gpu-decode"]):
        answer = cli("bench", *words, *QUICK)
        assert answer.code == 2, answer.out
        assert "gpu-ssd: unmeasured: no CUDA device" in answer.out
    rows = "rms-norm-gated,gpu-ssd"
    answer = cli("bench", "--rows", rows, "--dtype", "float32", *QUICK)
    assert answer.code == 0, answer.err
    assert "gpu-ssd: unmeasured: no CUDA device" in answer.out


def test_explain_tells_what_each_operator_uses(cli) -> None:
    answer = cli("bench", "--explain", "min_gru", "--json", "-")
    assert answer.code == 0, answer.err
    found = {(use["phase"], use["op"]): use for use in answer.json()}
    use = found["forward", "linear_scan"]
    assert use["calls"] == 1
    assert set(use["refusals"]) == set(use["backends"][: use["backends"].index(use["backend"])])
    shown = cli("bench", "--explain", "min_gru")
    assert f"forward\tlinear_scan\t{use['backend']}\t1" in shown.out


def test_explain_takes_run_folders(cli, language_run: Path) -> None:
    answer = cli("bench", "--explain", language_run)
    assert answer.code == 0, answer.err
    assert "linear_scan" in answer.out


@pytest.mark.slow
def test_explain_takes_recipes_with_a_grid(cli) -> None:
    assert cli("bench", "--explain", "s4nd_cifar").code == 0


@pytest.mark.slow
def test_a_run_settles_the_allocator_first(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    words = [
        "bench",
        "--rows",
        "causal-conv",
        "--tiny",
        "--threads",
        "1",
        "--seconds",
        "0",
        "--json",
        str(file),
    ]
    answer = subprocess.run(
        [sys.executable, "-m", "hippodrome", *words], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert "--settled" not in json.loads(file.read_text())["command"]
