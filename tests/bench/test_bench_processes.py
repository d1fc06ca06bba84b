"""What needs processes of its own: models beside their rival, peaks of memory, two commits in turns."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import hippodrome
from hippodrome.bench import commits, process, rivals
from hippodrome.bench.row import Pace, Where
from hippodrome.bench.rows import every
from hippodrome.bench.run import measure

QUICK = Pace(seconds=0, least=1)
CPU = torch.device("cpu")
ASKED = {"shape": {}, "contender": "", "device": "cpu", "dtype": "float32", "warm": {}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "kind", "dtype"),
    [
        ("train-130m", "mamba2", torch.bfloat16),
        ("prefill-512", "mamba", torch.float32),
        ("decode-130m", "mamba2", torch.bfloat16),
    ],
)
def test_models_run_beside_their_rival(job: str, kind: str, dtype: torch.dtype) -> None:
    row = every()[f"{job}-{kind}"]
    (found,) = measure(row, Where(CPU, dtype), 1, QUICK, tiny=True)
    names = [t.contender for t in found]
    assert names[0] == "hippodrome"
    assert any(t.floor for t in found)
    if not rivals.absent(row.rivals):
        assert any(name.startswith("transformers") for name in names)
    assert found[0].peak_bytes is None or found[0].peak_bytes > 2**20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["length", "stream"])
def test_models_by_length_run(name: str) -> None:
    (found,) = measure(every()[name], Where(), 1, QUICK, tiny=True)
    assert all(t.median > 0 for t in found)


@pytest.mark.slow
def test_a_peak_is_what_a_contender_holds_beyond_its_inputs() -> None:
    row, shape = every()["linear-scan"], {"b": 1, "t": 4096, "d": 1024}
    place = {"device": "cpu", "dtype": "float32", "warm": row.tiny}
    asked = {"row": row.name, "shape": shape, "contender": "our PyTorch form"}
    found = process.in_process("peaks", 1, {**asked, **place}, plain=True)
    if found["forward"] is None:
        pytest.skip("this system does not say how much a process holds")
    size = 4096 * 1024 * 4
    assert 0.9 * size <= found["forward"] < 64 * size  # h at least
    assert found["forward + backward"] >= 1.9 * size  # the gradients of a and x at least


def test_a_worker_that_fails_is_told_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="no-such-row"):
        process.in_process("peaks", 1, {**ASKED, "row": "no-such-row"})


def test_commands_run_under_settings() -> None:
    words = process.under({"A": "1"}, ["python"], without=["B"])
    assert words is None or words[1:] == ["-u", "B", "A=1", "python"]
    again = process.settled(["-m", "hippodrome"], 2)
    assert again is None or {"MALLOC_MMAP_MAX_=0", "OMP_NUM_THREADS=2"} <= set(again)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two commits of this library, in the second of which the linear scan is slower."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    root = tmp_path / "repository"
    package = root / "src" / "hippodrome"
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(hippodrome.__file__).parent, package, ignore=skipped)

    def git(*words: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(root), *who, *words], check=True, capture_output=True)

    git("init", "-q")
    shutil.copytree(package / "bench", root / "bench")
    shutil.rmtree(package / "bench")  # an old commit has no measuring code
    git("add", "src")
    git("commit", "-q", "-m", "one")
    git("tag", "old")
    door = package / "ops" / "linear_scan" / "__init__.py"
    text = door.read_text()
    marker = "    chosen = choose("
    assert marker in text
    door.write_text(text.replace(marker, f"    import time\n\n    time.sleep(0.05)\n{marker}"))
    git("add", "src")
    git("commit", "-q", "-m", "two")
    git("tag", "new")
    shutil.copytree(root / "bench", package / "bench")
    return root


@pytest.mark.slow
def test_two_commits_are_measured_in_turns(repository: Path) -> None:
    from hippodrome.bench.compare import compare

    one, two = commits.measured(
        "old",
        "new",
        ["linear-scan", "no-such-row"],
        dtypes=["float32"],
        threads=1,
        seconds=0.0,
        least=3,
        rounds=1,
        tiny=True,
        root=repository,
    )
    found = compare(one.timings, two.timings)
    names = [change.name for change in found.slower]
    assert any(name.startswith("linear-scan (hippodrome, forward, float32") for name in names)
    assert max(change.ratio for change in found.slower) > 5
    assert "there is no row 'no-such-row'" in one.failed["no-such-row"]
    listed = subprocess.run(
        ["git", "-C", str(repository), "worktree", "list"], capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.strip().splitlines()) == 1  # nothing is left behind


def test_a_commit_that_is_not_there_is_named(repository: Path) -> None:
    with pytest.raises(ValueError, match="there is no commit 'mian'"):
        commits.measured("old", "mian", [], dtypes=[], threads=1, seconds=0.0, least=1, root=repository)


def test_worker_answers_in_json() -> None:
    found = process.in_process(
        "read", 1, {"kind": "mamba", "vocab": 64, "d_model": 16, "depth": 1, "repeats": 2}
    )
    assert len(found["seconds"]) == 2
    assert json.dumps(found)
