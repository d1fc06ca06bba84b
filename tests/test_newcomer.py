"""A newcomer's mixer: docs/extend.md performed on a copy of the package, with no other file touched."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(package: Path, *words: str) -> str:
    """Standard output of Python with the copied package in front of the installed one."""
    environment = {**os.environ, "PYTHONPATH": str(package), "JAXTYPING_DISABLE": "1"}
    answer = subprocess.run(
        [sys.executable, *words], cwd=package, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def sources(package: Path) -> dict[str, str]:
    """Every source file of the copy with a hash of what it holds."""
    return {
        str(path.relative_to(package)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((package / "hippodrome").rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the mixer of docs/extend.md in it."""
    folder = tmp_path_factory.mktemp("copy")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src" / "hippodrome", folder / "hippodrome", ignore=ignore)
    page = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    (block,) = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class QRNN" in code]
    before = sources(folder)
    (folder / "hippodrome" / "mixers" / "qrnn.py").write_text(block, encoding="utf-8")
    after = sources(folder)
    new = {name for name in after if after[name] != before.get(name)}
    assert new == {os.path.join("hippodrome", "mixers", "qrnn.py")}
    return folder


def test_it_appears_in_the_list_with_its_paper(package: Path) -> None:
    rows = json.loads(run(package, "-m", "hippodrome", "list", "mixers", "--json"))["mixers"]
    (mine,) = [row for row in rows if row["kind"] == "qrnn"]
    assert "1611.01576" in mine["source"]


@pytest.mark.slow
def test_it_keeps_the_contract(package: Path) -> None:
    code = (
        "import hippodrome; from pathlib import Path\n"
        "assert Path(hippodrome.__file__).parent.parent == Path.cwd(), hippodrome.__file__\n"
        "from hippodrome.config import find\n"
        "from hippodrome.testing.mixers import check_mixer\n"
        "check_mixer(find('mixers', 'qrnn').example())"
    )
    run(package, "-c", code)


@pytest.mark.slow
def test_it_races(package: Path, tmp_path: Path) -> None:
    text = tmp_path / "rhyme.txt"
    text.write_text("The quick brown fox jumps over the lazy dog.\n" * 120, encoding="utf-8")
    options = tmp_path / "tiny.yaml"
    options.write_text(
        "parameters: 4000\ndepth: 1\nbatch_size: 4\nbudget: 2steps\nbaselines: []\nlengths: [16]\n"
        "valid_batches: 1\nvalidations: 1\ndata:\n  length: 32\n",
        encoding="utf-8",
    )
    words = ["race", str(text), "--models", "qrnn", "-c", str(options), "--device", "cpu"]
    words += ["--out", str(tmp_path / "race"), "--json"]
    result = json.loads(run(package, "-m", "hippodrome", *words))
    (mine,) = [s for s in result["standings"] if s["name"] == "qrnn"]
    assert mine["status"] == "finished"
    assert (tmp_path / "race" / "report.html").is_file()


def test_the_page_is_kept_within_the_rules_of_the_house(package: Path) -> None:
    block = (package / "hippodrome" / "mixers" / "qrnn.py").read_text(encoding="utf-8")
    assert max(map(len, block.splitlines())) <= 110
    compile(block, "qrnn.py", "exec")
