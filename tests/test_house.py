"""The rules of the house, held by reading the source: floors, sizes, names, and what the library never does.

Every rule is one test over all files, and its failure lists each place with file and line.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "hippodrome"
PACKAGE = "hippodrome"

FLOORS = {
    name: floor
    for floor, names in enumerate(
        (
            "shapes memory",
            "ops inits text",
            "layers",
            "mixers",
            "backbones",
            "models",
            "data train generate quantize analyze testing config",
            "recipes runs",
            "race estimators bench checkpoints serve",
            "cli",
            "__main__ __init__",
        )
    )
    for name in names.split()
}

HEAVY = ["torch", "numba", "triton", "lightning", "pandas", "matplotlib", "transformers"]


@cache
def library() -> tuple[Path, ...]:
    """Every source file of the package."""
    return tuple(sorted(SOURCE.rglob("*.py")))


@cache
def everything() -> tuple[Path, ...]:
    """Every Python file of the repository that is ours."""
    ours = [ROOT / "bootstrap.py"]
    for folder in ("src", "tests"):
        ours += sorted((ROOT / folder).rglob("*.py"))
    return tuple(ours)


@cache
def tree(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def place(path: Path, node: ast.AST | None = None) -> str:
    """file:line, as an editor understands it."""
    line = f":{node.lineno}" if node is not None and hasattr(node, "lineno") else ""
    return f"{path.relative_to(ROOT)}{line}"


def module_name(path: Path) -> str:
    """hippodrome/ops/ssd/__init__.py as hippodrome.ops.ssd."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {module_name(path): path for path in library()}


def imported(path: Path) -> Iterator[tuple[ast.AST, str]]:
    """Modules of ours that a file imports anywhere in it, the submodule where one is named."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place(path, node)}: a relative import; write the whole path"
            if (node.module or "").split(".")[0] != PACKAGE:
                continue
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if node.module == PACKAGE and alias.name == "__version__":
                    continue
                yield node, inner if inner in modules() else str(node.module)


def part(module: str) -> str:
    """The floor's own name: hippodrome.ops.ssd as ops."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else "__init__"


def report(problems: list[str]) -> None:
    """Fail with every place at once."""
    if problems:
        pytest.fail("\n".join(sorted(problems)), pytrace=False)


def test_every_part_has_a_floor() -> None:
    report([f"{place(path)}: give it a floor" for m, path in modules().items() if part(m) not in FLOORS])


def test_imports_go_down() -> None:
    problems = []
    for module, path in modules().items():
        here = part(module)
        if here in ("__init__", "__main__"):
            continue
        for node, target in imported(path):
            there = part(target)
            if there != here and FLOORS[there] >= FLOORS[here]:
                floors = f"floor {FLOORS[here]} imports {there} of floor {FLOORS[there]}"
                problems.append(f"{place(path, node)}: {here} of {floors}")
    report(problems)


def test_no_cycles() -> None:
    edges = {m: [t for _, t in imported(path) if t != m] for m, path in modules().items()}
    done: set[str] = set()
    problems: list[str] = []

    def visit(module: str, trail: list[str]) -> None:
        if module in trail:
            problems.append("cycle: " + " -> ".join([*trail[trail.index(module) :], module]))
            return
        if module in done:
            return
        for target in edges.get(module, []):
            visit(target, [*trail, module])
        done.add(module)

    for module in edges:
        if module != PACKAGE:
            visit(module, [])
    report(problems)


def test_files_are_short() -> None:
    problems = []
    for path in everything():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        limit = 800 if path.name.endswith("_kernel.py") else 400
        if lines > limit:
            problems.append(f"{place(path)}: {lines} lines, at most {limit}")
    report(problems)


def test_files_of_tests_have_names_of_their_own() -> None:
    """Two of one name in different folders are one module, and the second is not collected."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert not [name for name in set(names) if names.count(name) > 1]


def test_first_statement_says_what_the_file_is() -> None:
    report([f"{place(path)}: no docstring" for path in everything() if not ast.get_docstring(tree(path))])


def base_names(node: ast.ClassDef) -> list[str]:
    """The last names of a class's bases, subscripts off."""
    return [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]


def classes(path: Path) -> list[ast.ClassDef]:
    """Every class of a file."""
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]


@cache
def class_table() -> dict[str, ast.ClassDef]:
    """Every class of the library by its name."""
    return {node.name: node for path in library() for node in classes(path)}


def is_bare(node: ast.ClassDef) -> bool:
    """A class that only holds settings for those below it: a docstring, model_config, ClassVars."""
    for item in node.body:
        text = ast.unparse(item)
        settings = text.startswith("model_config") or "ClassVar" in text.split("=")[0]
        if not (isinstance(item, ast.Expr | ast.Pass) or settings):
            return False
    return True


def lineage(name: str) -> list[str]:
    """A class and those of ours above it, in the order in which Python looks their methods up."""
    bases = [base for base in base_names(class_table()[name]) if base in class_table()]
    above = [owner for base in bases for owner in lineage(base)]
    return [name, *(owner for i, owner in enumerate(above) if owner not in above[i + 1 :])]


def left_abstract(name: str) -> set[str]:
    """The abstract methods that a class of ours leaves to those below it."""
    abstract: dict[str, bool] = {}
    for owner in lineage(name) if name in class_table() else []:
        for node in class_table()[owner].body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                marked = any("abstractmethod" in ast.unparse(d) for d in node.decorator_list)
                abstract.setdefault(node.name, marked)
    return {method for method, marked in abstract.items() if marked}


def is_abstract(node: ast.ClassDef) -> bool:
    """A class that is unfinished: marked ABC or Protocol, with abstract methods left over, or bare."""
    return (
        bool({"ABC", "Protocol"} & set(base_names(node))) or bool(left_abstract(node.name)) or is_bare(node)
    )


def ours_here(path: Path) -> set[str]:
    """Names of classes of ours as a file knows them: its own, and those it imports from the package."""
    imports = [n for n in ast.walk(tree(path)) if isinstance(n, ast.ImportFrom)]
    taken = {a.name for n in imports if (n.module or "").startswith(PACKAGE) for a in n.names}
    return (taken & set(class_table())) | {node.name for node in classes(path)}


def test_no_concrete_class_of_ours_is_subclassed() -> None:
    problems = []
    for path in library():
        for node in classes(path):
            for base in set(base_names(node)) & ours_here(path):
                if not is_abstract(class_table()[base]):
                    problems.append(f"{place(path, node)}: {node.name} subclasses the concrete {base}")
    report(problems)


def mixer_files() -> list[Path]:
    """The files that hold one mixer each."""
    return [
        p for p in sorted((SOURCE / "mixers").glob("*.py")) if not p.name.startswith("_") and p.stem != "base"
    ]


ARXIV = re.compile(r"arXiv[:\s]*\d{4}\.\d{4,5}")
AUTHORS_AND_YEAR = re.compile(r"[A-Z][\w'\-]+[^.]*?\b(19|20)\d\d\b")
# A paper that numbers no equations is cited by the section that holds them.
EQUATION = re.compile(
    r"([Ee]q(uation)?s?\.?|[Aa]lgorithms?)\s*\(?[A-Z]?\.?\d|[Ss]ection \d[\d.]*, equations?"
)


@pytest.mark.parametrize("path", mixer_files(), ids=lambda path: path.stem)
def test_one_final_mixer_a_file(path: Path) -> None:
    states = {"NamedTuple"}
    mixers = [n for n in classes(path) if not n.name.startswith("_") and not states & set(base_names(n))]
    assert len(mixers) == 1, f"{place(path)}: one public mixer a file; found {[n.name for n in mixers]}"
    (mixer,) = mixers
    assert not is_abstract(mixer), f"{place(path, mixer)}: {mixer.name} is abstract"
    text = ast.get_docstring(mixer) or ""
    text = " ".join(f"{ast.get_docstring(tree(path)) or ''}\n{text}".split())
    cited = ARXIV.search(text) or AUTHORS_AND_YEAR.search(text)
    assert cited, f"{place(path, mixer)}: cite the source: an arXiv number, or authors and year"
    assert EQUATION.search(text), f"{place(path, mixer)}: name the equation of the source"
    names = {m.name for m in mixer.body if isinstance(m, ast.FunctionDef)}
    assert "example" in names, f"{place(path, mixer)}: {mixer.name}.example() is missing"


def test_no_keyword_catch_all_in_a_constructor() -> None:
    problems = []
    for path in library():
        for owner in classes(path):
            for node in owner.body:
                if (
                    isinstance(node, ast.FunctionDef)
                    and node.name in ("__init__", "__new__")
                    and node.args.kwarg
                ):
                    problems.append(f"{place(path, node)}: {owner.name} takes **{node.args.kwarg.arg}")
    report(problems)


def test_what_the_library_never_does() -> None:
    problems = []
    for path in library():
        for node in ast.walk(tree(path)):
            what = None
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "os.environ",
                "os.getenv",
                "os.putenv",
            ):
                what = ast.unparse(node)
            elif isinstance(node, ast.ImportFrom) and node.module == "os":
                what = next((a.name for a in node.names if a.name in ("environ", "getenv")), None)
            elif isinstance(node, ast.Global):
                what = "global"
            elif isinstance(node, ast.ExceptHandler) and node.type is None:
                what = "a bare except"
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                what = "print"
            elif isinstance(node, ast.Name) and node.id == "NotImplementedError":
                what = "NotImplementedError"
            if what:
                problems.append(f"{place(path, node)}: {what}")
    report(problems)


def test_no_notes_to_self() -> None:
    # Written in two halves so that this file does not hold the words.
    words = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"]) + r")\b")
    problems = []
    for path in everything():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if words.search(line):
                problems.append(f"{place(path)}:{number}: {line.strip()}")
    report(problems)


def test_the_gpu_is_never_a_default() -> None:
    problems = []
    for path in library():
        for node in ast.walk(tree(path)):
            values: list[ast.expr | None] = []
            if isinstance(node, ast.arguments):
                values = [*node.defaults, *node.kw_defaults]
            elif isinstance(node, ast.AnnAssign):
                values = [node.value]
            for value in values:
                if isinstance(value, ast.Constant) and str(value.value).startswith("cuda"):
                    problems.append(f"{place(path, value)}: a default of {value.value!r}")
    report(problems)


def test_recipes_are_data() -> None:
    problems = []
    for path in (SOURCE / "recipes").rglob("*.py"):
        if path.name == "__init__.py":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                problems.append(f"{place(path, node)}: a recipe is data, with no class and no function")
    report(problems)


def test_every_op_has_its_definition_and_its_examples() -> None:
    problems = []
    for folder in sorted((SOURCE / "ops").iterdir()):
        if folder.is_dir() and folder.name != "__pycache__":
            for name in ("__init__.py", "reference.py", "examples.py"):
                if not (folder / name).is_file():
                    problems.append(f"{folder.relative_to(ROOT)}: {name} is missing")
            if "BACKENDS" not in (folder / "__init__.py").read_text(encoding="utf-8"):
                problems.append(f"{folder.relative_to(ROOT)}: the door has no BACKENDS")
    report(problems)


def test_every_dependency_is_explained() -> None:
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = list(facts["project"]["dependencies"])
    for group in facts["project"]["optional-dependencies"].values():
        wanted += group
    for group in facts["dependency-groups"].values():
        wanted += [entry for entry in group if isinstance(entry, str)]
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    names = {re.split(r"[<>=!~\[; ]", entry)[0] for entry in wanted}
    report(
        [f"docs/dependencies.md: no line for {n}" for n in names if not re.search(rf"^\|.*`{n}`", page, re.M)]
    )


def loaded_after(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter holds after some code."""
    probe = f"{code}\nimport sys\nsys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(answer.stderr.split())


def test_import_is_light() -> None:
    assert loaded_after("import hippodrome") == set()


def test_import_of_a_mixer_needs_no_compiler() -> None:
    heavy = loaded_after("import hippodrome.mixers.base, hippodrome.ops.linear_scan")
    assert heavy <= {"torch"}, heavy


def test_help_is_light() -> None:
    code = (
        "from typer.testing import CliRunner\nfrom hippodrome.cli import app\n"
        "answer = CliRunner().invoke(app, ['--help'])\nassert answer.exit_code == 0, answer.output"
    )
    assert loaded_after(code) == set()
