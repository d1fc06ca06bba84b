"""All rows there are, by name; and rows of single operators and mixers, made as they are asked for."""

from collections.abc import Iterable
from functools import cache, partial
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import torch

import hippodrome.ops
from hippodrome.bench import convolutions, flat, forecasters, gpu, models, ops, structured
from hippodrome.bench.measure import take_turns, timing
from hippodrome.bench.ops import example_tensors, generic
from hippodrome.bench.row import Ask, Contender, Row, Timing, Where, leaves
from hippodrome.config import choices, suggest, with_small_sizes
from hippodrome.config import find as find_kind

LEVELS = ("op", "layer", "model", "gpu")
OPERATOR, MIXER = "operator ", "mixer "
BOTH_TYPES = ("float32", "bfloat16")


@cache
def every() -> dict[str, Row]:
    """The rows of all levels in the order in which they are shown."""
    found = (
        *ops.ROWS,
        *ops.matrix_state_rows(),
        *flat.rows(),
        *structured.ROWS,
        *convolutions.ROWS,
        *models.ROWS,
        *forecasters.ROWS,
        *gpu.ROWS,
    )
    return {row.name: row for row in found}


def chosen(names: Iterable[str], level: str | None = None) -> list[Row]:
    """The rows of these names, or of a level where there are none; a name may leave off its last parts.

    Raises ValueError for a level or a name that there is not.
    """
    known = every()
    if level is not None and level not in LEVELS:
        raise ValueError(f"there is no level {level!r}{suggest(level, LEVELS)}")
    found: dict[str, Row] = {}
    for name in names:
        matching = [row for key, row in known.items() if key == name] or [
            row for key, row in known.items() if key.startswith(f"{name}-")
        ]
        if not matching:
            raise ValueError(f"there is no row {name!r}{suggest(name, known)}")
        found |= {row.name: row for row in matching}
    listed = list(found.values()) if found else list(known.values())
    return [row for row in listed if level is None or row.level == level]


def operators() -> list[str]:
    """The names of all operators."""
    return sorted(name for _, name, package in iter_modules(hippodrome.ops.__path__) if package)


def of_name(name: str, width: int = 256, length: int = 1024) -> list[Row]:
    """The rows of an operator and of a mixer of this name, of this library alone.

    Raises ValueError where there is neither.
    """
    known, mixers = operators(), [kind for kind in choices("mixers") if kind != "bidirectional"]
    if name not in known + mixers:
        raise ValueError(f"there is no operator and no mixer {name!r}{suggest(name, known + mixers)}")
    found = []
    if name in known:
        shapes = import_module(f"hippodrome.ops.{name}.examples").BENCH_SHAPES
        title, note = f"The operator {name}", "Every backend that can run its example, on its example."
        build = partial(_backends, op=name)
        found.append(
            Row(OPERATOR + name, "op", title, note, shapes, {}, build, dtypes=BOTH_TYPES, memory=False)
        )
    if name in mixers:
        title, note = f"The mixer {name}", "At its default options."
        measure = partial(_mixer, width=width, length=length)
        found.append(Row(MIXER + name, "layer", title, note, measure=measure, kind=name))
    return found


def find(name: str) -> Row:
    """One row by its whole name, those made as they are asked for among them. Raises ValueError for none."""
    for prefix in (OPERATOR, MIXER):
        if name.startswith(prefix):
            rows = of_name(name.removeprefix(prefix))
            return next(row for row in rows if row.name == name)
    if name not in every():
        raise ValueError(f"there is no row {name!r}{suggest(name, every())}")
    return every()[name]


def _backends(where: Where, op: str, **shape: Any) -> list[Contender]:
    """Every backend that runs the operator's example, except the definition, which is never fast."""
    door = import_module(f"hippodrome.ops.{op}")
    tensors = [x for x in example_tensors(op, where, **shape) if x is None or isinstance(x, torch.Tensor)]
    names = [b.NAME for b in door.BACKENDS if b.NAME != "reference" and b.refusal(*tensors) is None]
    return [generic(op, f"hippodrome, {name}", where, shape, name) for name in names]


def _mixer(ask: Ask, width: int, length: int) -> list[Timing]:
    """Forward, forward + backward and one step of a mixer."""
    if ask.tiny:
        width, length = 16, 32
    device = ask.where.device
    torch.manual_seed(0)
    options = with_small_sizes(ask.kind, None, width, length).get(ask.kind, {})
    mixer = find_kind("mixers", ask.kind)(width, **options).to(device)
    (x,) = leaves(ask.where.normal(1)(1, length, width))

    def forward() -> None:
        with torch.no_grad():
            mixer(x)

    def both() -> None:
        mixer.zero_grad(set_to_none=True)
        y = mixer(x)[0]
        y.backward(torch.ones_like(y))

    calls = {"forward": forward, "forward + backward": both}
    if mixer.causal:
        with torch.no_grad():
            _, state = mixer(x, mixer.init_state(1, length + 1))

        def step() -> None:
            with torch.no_grad():
                mixer.step(x[:, -1], state)

        calls["one step"] = step
    shape = {"b": 1, "t": length, "d": width}
    return [
        timing(ask.row, phase, "hippodrome", shape, ask.threads, seconds)
        for phase, call in calls.items()
        for seconds in take_turns({phase: call}, ask.pace, device).values()
    ]
