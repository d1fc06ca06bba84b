"""`hippodrome bench`: how fast the operators and mixers of this installation run on this machine.

Beside its rivals Hippodrome is measured by `make bench`, from a checkout: that needs their packages.
"""

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from inspect import signature
from typing import Annotated, Any

import typer

from hippodrome.cli._options import Device, Json, present
from hippodrome.cli._output import as_json, table

PANEL = "Look things up"

# On glibc, large temporaries would otherwise time page faults instead of arithmetic.
ALLOCATOR = ("MALLOC_MMAP_MAX_=0", "MALLOC_TRIM_THRESHOLD_=100000000000", "MALLOC_TOP_PAD_=268435456")


def command(
    names: Annotated[list[str] | None, typer.Argument(help="Operators and mixers; all if left out.")] = None,
    device: Device = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="PyTorch's own number if left out.")] = None,
    width: Annotated[int, typer.Option(min=8, help="Channels of the mixers.")] = 256,
    length: Annotated[int, typer.Option(min=1, help="Tokens of the mixers.")] = 1024,
    tiny: Annotated[bool, typer.Option("--tiny", help="Sizes that only show that everything runs.")] = False,
    settled: Annotated[bool, typer.Option("--settled", hidden=True)] = False,
    json: Json = False,
) -> None:
    """Time operators and mixers of this installation: forward, forward + backward, one step."""
    if not settled and platform.system() == "Linux" and (env := shutil.which("env")):
        words = [sys.executable, "-m", "hippodrome", *sys.argv[1:], "--settled"]
        raise typer.Exit(subprocess.call([env, *ALLOCATOR, *words]))
    import torch

    from hippodrome.config import kinds, suggest

    operators, mixers = _operators(), kinds("mixers")
    for name in names or ():
        if name not in operators + mixers:
            raise ValueError(f"there is no operator and no mixer {name!r}{suggest(name, operators + mixers)}")
    if threads:
        torch.set_num_threads(threads)
    device = present(device)
    size = (16, 32) if tiny else (width, length)
    rows: list[dict[str, Any]] = []
    for name in operators:
        if not names or name in names:
            rows += _operator(name, device, tiny)
    for kind in mixers:
        if not names or kind in names:
            rows.append(_mixer(kind, device, *size))
    if json:
        as_json({"threads": torch.get_num_threads(), "device": device, "rows": rows})
        return
    columns = ["what", "backend", "shape", "forward", "and backward", "step"]
    table(
        f"medians, {torch.get_num_threads()} threads, {device}",
        columns,
        [
            [r["what"], r["backend"], r["shape"], *map(_time, (r["forward"], r["both"], r["step"]))]
            for r in rows
        ],
    )


def _operators() -> list[str]:
    from pkgutil import iter_modules

    import hippodrome.ops

    return [name for _, name, package in iter_modules(hippodrome.ops.__path__) if package]


def _operator(name: str, device: str, tiny: bool) -> Iterator[dict[str, Any]]:
    """The rows of one operator: every shape of its examples, every backend that is no definition."""
    import torch

    from hippodrome.analyze.timing import seconds_of

    door = import_module(f"hippodrome.ops.{name}")
    examples = import_module(f"hippodrome.ops.{name}.examples")
    takes = signature(examples.inputs).parameters
    plain = {k: False for k in ("softplus", "with_state", "with_resets") if k in takes}
    where = torch.device(device)
    for shape in [{}] if tiny else examples.BENCH_SHAPES:
        inputs = [
            x.to(where) if isinstance(x, torch.Tensor) else x
            for x in examples.inputs(**shape, **plain, dtype=torch.float32)
        ]
        tensors = [x for x in inputs if x is None or isinstance(x, torch.Tensor)]
        for backend in door.BACKENDS:
            if backend.NAME == "reference" or backend.refusal(*tensors):
                continue
            call = partial(getattr(door, name), *inputs, backend=backend.NAME)
            with torch.no_grad():
                forward = seconds_of(call, where)
            trained = [
                x.clone().requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x
                for x in inputs
            ]
            both = seconds_of(_backward(partial(getattr(door, name), *trained, backend=backend.NAME)), where)
            told = " ".join(f"{k}={v}" for k, v in shape.items())
            yield {
                "what": name,
                "backend": backend.NAME,
                "shape": told,
                "forward": forward,
                "both": both,
                "step": None,
            }


def _mixer(kind: str, device: str, width: int, length: int) -> dict[str, Any]:
    """The row of one mixer at its default options."""
    import torch

    from hippodrome.analyze.timing import seconds_of
    from hippodrome.config import find

    where = torch.device(device)
    mixer = find("mixers", kind)(width).to(where)
    x = torch.randn(1, length, width, device=where)
    with torch.no_grad():
        forward = seconds_of(lambda: mixer(x), where)
        _, state = mixer(x, mixer.init_state(1, length + 1))
        step = seconds_of(lambda: mixer.step(x[:, -1], state), where) if mixer.causal else None
    both = seconds_of(_backward(lambda: mixer(x)), where)
    shape = f"b=1 t={length} d={width}"
    return {"what": kind, "backend": "", "shape": shape, "forward": forward, "both": both, "step": step}


def _backward(call: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        answer = call()
        output = answer[0] if isinstance(answer, tuple) else answer
        output.backward(output.detach())

    return run


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"
