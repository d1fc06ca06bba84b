"""`hippodrome doctor`: what this installation is made of, and what runs each operator, or why not."""

import platform
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from inspect import signature
from pkgutil import iter_modules
from typing import Annotated, Any

import typer

from hippodrome.cli._options import Device, Json, present
from hippodrome.cli._output import as_json, table

PANEL = "Look things up"

PACKAGES = ("hippodrome", "torch", "numba", "numpy", "lightning", "tokenizers", "pandas")


def command(
    device: Device = "cpu",
    check: Annotated[
        bool, typer.Option("--check", help="Also run every backend on its examples and compare the answers.")
    ] = False,
    json: Json = False,
) -> None:
    """Tell versions, threads, devices, and the backends of every operator; with --check, try them."""
    operators = _operators(present(device), check)
    found: dict[str, Any] = {"versions": _versions(), "machine": _machine(), "operators": operators}
    if json:
        as_json(found)
        raise typer.Exit(_verdict(found))
    table("versions", ["package", "version"], list(found["versions"].items()))
    typer.echo()
    table("machine", ["what", "value"], list(found["machine"].items()))
    typer.echo()
    columns = ["operator", "backend", f"on {device}", *(["error"] if check else [])]
    rows = [
        [
            op,
            name,
            facts["refusal"] or ("runs" if not facts["chosen"] else "runs, chosen"),
            *([facts["error"]] if check else []),
        ]
        for op, backends in found["operators"].items()
        for name, facts in backends.items()
    ]
    table("operators", columns, rows)
    if code := _verdict(found):
        typer.echo("Some backend answers wrongly: force another with backend=..., and report it.", err=True)
        raise typer.Exit(code)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _machine() -> dict[str, str]:
    import torch

    cuda = "no GPU answers" if torch.version.cuda else "this build of torch has no CUDA"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        cuda = f"CUDA {torch.version.cuda}: {', '.join(names)}"
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": sys.executable,
        "threads": str(torch.get_num_threads()),
        "vector unit": torch.backends.cpu.get_cpu_capability(),
        "cuda": cuda,
        "mps": "available" if torch.backends.mps.is_available() else "not available",
    }


def _operators(device: str, check: bool) -> dict[str, dict[str, dict[str, Any]]]:
    """operator -> backend -> what it answers to the operator's own example in float32 on the device."""
    import hippodrome.ops

    names = [name for _, name, package in iter_modules(hippodrome.ops.__path__) if package]
    return {name: _backends(name, device, check) for name in names}


def _backends(name: str, device: str, check: bool) -> dict[str, dict[str, Any]]:
    import torch

    door = import_module(f"hippodrome.ops.{name}")
    examples = import_module(f"hippodrome.ops.{name}.examples")
    # Arguments that are right as they stand, with no option of the door turned on.
    plain = {"softplus": False} if "softplus" in signature(examples.inputs).parameters else {}

    def inputs() -> list[Any]:
        # Made anew for every backend: some operators overwrite a state.
        return [_moved(x, device) for x in examples.inputs(dtype=torch.float32, **plain)]

    truth = None
    if check:
        truth = getattr(door, name)(*inputs(), backend="reference")
    found: dict[str, dict[str, Any]] = {}
    tensors = [x for x in inputs() if x is None or isinstance(x, torch.Tensor)]
    for backend in door.BACKENDS:
        refusal = backend.refusal(*tensors)
        chosen = refusal is None and not any(f["chosen"] for f in found.values())
        error = ""
        if check and refusal is None:
            error = _error(getattr(door, name)(*inputs(), backend=backend.NAME), truth)
        found[backend.NAME] = {"refusal": refusal, "chosen": chosen, "error": error}
    return found


def _moved(value: Any, device: str) -> Any:
    return value.to(device) if hasattr(value, "to") else value


def _error(answer: Any, truth: Any) -> str:
    """The largest difference over the largest value, over all outputs."""
    pairs = zip(answer, truth, strict=True) if isinstance(answer, tuple) else [(answer, truth)]
    worst = max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in pairs if b.numel())
    return f"{worst:.1e}"


def _verdict(found: dict[str, Any]) -> int:
    """1 if some backend's answer is further from the definition than float32 explains."""
    errors = [f["error"] for backends in found["operators"].values() for f in backends.values() if f["error"]]
    return int(any(not float(e) < 1e-4 for e in errors))
