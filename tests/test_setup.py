"""The set-up: which torch is taken, what is skipped, what a person reads on failure. Nothing is installed."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bootstrap() -> ModuleType:
    """A fresh copy of bootstrap.py as a module."""
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", ROOT / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Pip:
    """Stands in for pip: notes what is asked for and refuses what it is told to."""

    def __init__(self, refuse: str = "", says: str = "ERROR: No matching distribution found") -> None:
        self.asked: list[tuple[str, ...]] = []
        self.refuse, self.says = refuse, says

    def __call__(self, *words: str) -> SimpleNamespace:
        self.asked.append(words)
        failed = bool(self.refuse) and words[-1].startswith(self.refuse)
        return SimpleNamespace(returncode=int(failed), stdout=self.says if failed else "")

    @property
    def wanted(self) -> list[str]:
        """The last word of each call: what was to be installed."""
        return [words[-1] for words in self.asked]


@pytest.fixture
def machine(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what the machine is: ``machine(have=..., gpu=..., platform=...)`` gives the stand-in for pip."""

    def make(pip: Pip, have: str = "", gpu: bool = False, platform: str = "linux") -> Pip:
        answer = SimpleNamespace(returncode=int(not have), stdout=have + "\n")
        monkeypatch.setattr(bootstrap, "call", lambda command: answer)
        monkeypatch.setattr(bootstrap, "has_gpu", lambda: gpu)
        monkeypatch.setattr(bootstrap, "pip", pip)
        monkeypatch.setattr(bootstrap.sys, "platform", platform)
        return pip

    return make


@pytest.mark.parametrize("version", ["2.13.0", "2.13.0+cpu", "2.13.0+cu130"])
def test_a_torch_that_fits_is_kept(bootstrap: ModuleType, machine: Any, version: str) -> None:
    pip = machine(Pip(), have=version)
    bootstrap.install_torch("")
    assert pip.asked == []


@pytest.mark.parametrize(("gpu", "platform"), [(True, "linux"), (False, "darwin")])
def test_a_gpu_or_macos_takes_the_plain_build(
    bootstrap: ModuleType, machine: Any, gpu: bool, platform: str
) -> None:
    pip = machine(Pip(), have="2.12.1", gpu=gpu, platform=platform)
    bootstrap.install_torch("")
    assert pip.wanted == ["torch==2.13.0"]


def test_elsewhere_the_cpu_build_comes_first_then_the_plain_one(bootstrap: ModuleType, machine: Any) -> None:
    pip = machine(Pip())
    bootstrap.install_torch("")
    assert pip.wanted == ["torch==2.13.0+cpu"]
    pip = machine(Pip(refuse="torch==2.13.0+cpu"))
    bootstrap.install_torch("file:///somewhere")
    assert pip.wanted == ["torch==2.13.0+cpu", "torch==2.13.0"]
    assert all("file:///somewhere" in words for words in pip.asked)


def test_no_torch_at_all_is_told_in_a_sentence(bootstrap: ModuleType, machine: Any) -> None:
    machine(Pip(refuse="torch"))
    with pytest.raises(
        bootstrap.Problem, match=r"PyTorch could not be installed\. No package index here has it"
    ):
        bootstrap.install_torch("")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("NewConnectionError(...): Failed: [Errno -3] Temporary failure in name resolution", "online"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for numba>=0.61", "No package index here has it"),
    ],
)
def test_failures_are_explained(bootstrap: ModuleType, said: str, told: str) -> None:
    sentence = str(bootstrap.explain("hippodrome", said))
    assert told in sentence
    assert "\n" not in sentence


def test_an_old_python_hands_over_or_says_so(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 1))
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    with pytest.raises(bootstrap.Problem, match=r"Python 3\.11 or newer is needed.*3\.9"):
        bootstrap.find_python()
    calls: list[list[str]] = []
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: name if name == "python3.12" else None)
    monkeypatch.setattr(bootstrap.subprocess, "call", lambda words, **more: calls.append(words) or 0)
    with pytest.raises(SystemExit):
        bootstrap.find_python()
    assert calls[-1] == ["python3.12", *sys.argv]


def test_a_python_without_venv_is_told(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bootstrap, "PYTHON", str(tmp_path / "none"))
    monkeypatch.setattr(
        bootstrap.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else 1
    )
    with pytest.raises(bootstrap.Problem, match="python3-venv"):
        bootstrap.make_venv()


def test_the_stamp_skips_what_is_done(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stamp = tmp_path / "stamp.json"
    stamp.write_text(json.dumps({"inputs": bootstrap.fingerprint(), "groups": ["lint", "test"]}))
    monkeypatch.setattr(bootstrap, "STAMP", str(stamp))
    monkeypatch.setattr(bootstrap, "PYTHON", sys.executable)
    done: list[str] = []
    for step in ("make_venv", "upgrade_pip"):
        monkeypatch.setattr(bootstrap, step, lambda step=step: done.append(step))
    monkeypatch.setattr(bootstrap, "install_torch", lambda index: done.append("torch"))
    monkeypatch.setattr(bootstrap, "pip", pip := Pip())
    bootstrap.set_up(["test"], "")
    assert done == []
    bootstrap.set_up(["docs"], "")
    assert done == ["make_venv", "upgrade_pip", "torch"]
    groups = [b for a, b in zip(pip.asked[-1], pip.asked[-1][1:], strict=False) if a == "--group"]
    assert groups == ["docs", "lint", "test"]  # what was there stays
    assert json.loads(stamp.read_text())["groups"] == groups


def test_adapters_have_an_environment_of_their_own(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usual = Path(bootstrap.VENV)
    monkeypatch.setattr(bootstrap, "APART", {"adapters": (str(tmp_path), ["sktime==1", "pandas==3.0.6"])})
    monkeypatch.setattr(bootstrap, "find_python", lambda: None)
    for step in ("make_venv", "upgrade_pip"):
        monkeypatch.setattr(bootstrap, step, lambda: None)
    monkeypatch.setattr(bootstrap, "install_torch", lambda index: None)
    monkeypatch.setattr(bootstrap, "pip", pip := Pip())
    ran: list[list[str]] = []
    monkeypatch.setattr(bootstrap.subprocess, "call", lambda words, **more: ran.append(words) or 0)
    assert bootstrap.main(["adapters"]) == 0
    (asked,) = pip.asked
    assert asked[-2:] == ("sktime==1", "pandas==3.0.6")
    versions = Path(asked[asked.index("-c") + 1]).read_text(encoding="utf-8").splitlines()
    assert not [line for line in versions if line.startswith("pandas==")]
    assert "pandas-stubs" in {line.split("==")[0] for line in versions}
    assert ran[0][0] == str(tmp_path / Path(bootstrap.PYTHON).relative_to(bootstrap.VENV))
    assert not str(bootstrap.STAMP).startswith(str(usual))
    assert all((ROOT / file).is_file() for file in bootstrap.ADAPTERS)


def test_a_failed_installation_leaves_no_stamp(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stamp = tmp_path / "stamp.json"
    stamp.write_text(json.dumps({"inputs": "older", "groups": []}))
    monkeypatch.setattr(bootstrap, "STAMP", str(stamp))
    for step in ("make_venv", "upgrade_pip"):
        monkeypatch.setattr(bootstrap, step, lambda: None)
    monkeypatch.setattr(bootstrap, "install_torch", lambda index: None)
    monkeypatch.setattr(bootstrap, "pip", lambda *words: SimpleNamespace(returncode=1, stdout="ERROR: no"))
    with pytest.raises(bootstrap.Problem):
        bootstrap.set_up([], "")
    assert not stamp.exists()


def test_every_command_of_a_task_runs_and_the_first_failure_is_told(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = iter([0, 3, 5])
    ran: list[str] = []

    def call(words: list[str], **more: Any) -> int:
        ran.append(words[2])
        return next(codes)

    monkeypatch.setattr(bootstrap.subprocess, "call", call)
    assert bootstrap.run([(["a"], {}), (["b"], {}), (["c"], {})], []) == 3
    assert ran == ["a", "b", "c"]


def test_it_needs_the_standard_library_alone() -> None:
    tree = ast.parse((ROOT / "bootstrap.py").read_text(encoding="utf-8"))
    names = {
        alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
    }
    names |= {str(n.module).split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names


def test_makefile_ci_and_readme_name_the_same_tasks(bootstrap: ModuleType) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^([a-z ]+):\n\t@\$\(PYTHON\) bootstrap.py", makefile, re.M)
    assert targets is not None
    assert set(targets[1].split()) == set(bootstrap.TASKS)
    assert {"make lint", "make test"} <= set(re.findall(r"make \w+", (ROOT / ".ci" / "run").read_text()))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {"make demo", "make test"} <= set(re.findall(r"make \w+", readme))


def test_groups_of_tasks_exist(bootstrap: ModuleType) -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    assert {group for wanted, _ in bootstrap.TASKS.values() for group in wanted} <= set(groups)


def test_constraints_pin_what_the_project_asks_for() -> None:
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*facts["project"]["dependencies"], *(e for g in facts["dependency-groups"].values() for e in g)]
    names = {re.split(r"[<>=!~\[; ]", entry)[0].lower().replace("_", "-") for entry in wanted}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert names <= pinned


def test_the_demo_names_models_that_exist(bootstrap: ModuleType) -> None:
    from hippodrome.config import parse_pattern

    for pattern in bootstrap.DEMO_MODELS.split(","):
        assert parse_pattern(pattern)


def test_help_of_bootstrap_needs_nothing() -> None:
    command = [sys.executable, "-I", str(ROOT / "bootstrap.py"), "--help"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0
    assert "demo" in answer.stdout


def test_words_behind_two_dashes_reach_the_commands_as_make_puts_them(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "find_python", lambda: None)
    monkeypatch.setattr(bootstrap, "set_up", lambda groups, index: None)
    monkeypatch.setattr(bootstrap, "run", lambda commands, more: asked.append(more) or 0)
    assert bootstrap.main(["bench", "--torch-index", "", "--", "--rows", "s5", "-k", "a -- b"]) == 0
    assert bootstrap.main(["test", "--torch-index", ""]) == 0
    assert asked == [["--rows", "s5", "-k", "a -- b"], []]
