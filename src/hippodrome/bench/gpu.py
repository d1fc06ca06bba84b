"""Rows for a GPU: scans beside hand-written CUDA, memory speed, decoding under CUDA graphs, answers checked.

The builders are those of the rows for a CPU, so that all but the capture of a graph runs on both.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from hippodrome.bench.language import OURS, model_of
from hippodrome.bench.measure import forward_backward, take_turns, timing
from hippodrome.bench.ops import (
    example_tensors,
    fill,
    first,
    linear_scan_row,
    output,
    selective_scan_row,
    ssd_row,
    trained,
)
from hippodrome.bench.row import Ask, Contender, Row, Timing, Where
from hippodrome.generate.decoder import Decoder, owned

BOTH = ("float32", "bfloat16")
TOKENS = 8
"""Tokens of one measurement of decoding."""

CHECKED: dict[str, dict[str, Any]] = {
    "linear_scan": {"b": 2, "t": 4096, "d": 256},
    "linear_scan_complex": {"b": 2, "t": 4096, "d": 128},
    "selective_scan": {"b": 2, "t": 4096, "d": 256, "n": 16},
    "ssd": {"b": 2, "t": 4096, "h": 4, "p": 64, "n": 128, "g": 1},
    "gla": {"b": 2, "t": 2048, "h": 2, "k": 64, "v": 64},
    "causal_conv": {"b": 2, "t": 4096, "d": 256},
}
"""Operators whose answers are held against float64, with the sizes of that."""
ALLOWED = 1e-4
"""The largest error of float32, over the largest value, before a check counts as failed."""


def _linear_scan(where: Where, **shape: int) -> list[Contender]:
    return linear_scan_row(where, "linear_scan", **shape)


def _linear_scan_complex(where: Where, **shape: int) -> list[Contender]:
    return linear_scan_row(where, "linear_scan_complex", **shape)


def _answers(op: str, tensors: list[Any], backend: str | None) -> list[Tensor]:
    """What a door answers, and the gradient of every floating tensor for a gradient of ones."""
    mine = trained(tensors)
    y = first(getattr(import_module(f"hippodrome.ops.{op}"), op)(*mine, backend=backend))
    wanted = fill(mine)
    return [y.detach(), *torch.autograd.grad(y, wanted, torch.ones_like(y))]


def errors(op: str, where: Where, **shape: Any) -> tuple[float, float]:
    """The largest errors of values and of gradients in float32 against float64 by the torch form."""
    tensors = example_tensors(op, where, **shape)
    wide = [x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in tensors]
    pairs = list(zip(_answers(op, tensors, None), _answers(op, wide, "torch"), strict=True))
    each = [float((a.double() - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in pairs]
    return each[0], max(each[1:])


def check_rows(ask: Ask) -> list[Timing]:
    """Every operator beside its error; ValueError where one is not what float32 explains."""
    found = []
    for op, sizes in CHECKED.items():
        shape = {k: min(v, 8) if k != "t" else 64 for k, v in sizes.items()} if ask.tiny else sizes
        values, gradients = errors(op, ask.where, **shape)
        if not max(values, gradients) < ALLOWED:
            raise ValueError(
                f"{op} on {ask.where.device}: values {values:.1e} and gradients {gradients:.1e} from "
                f"float64, over the largest; allowed is {ALLOWED:.0e}. Force backend='torch' and report it."
            )
        mine = trained(example_tensors(op, ask.where, **shape))
        door = getattr(import_module(f"hippodrome.ops.{op}"), op)
        name = f"hippodrome, {op}: values {values:.0e}, gradients {gradients:.0e} off"
        contender = Contender(name, partial(output, door, mine), fill(mine))
        call = {name: forward_backward(contender)}
        seconds = take_turns(call, ask.pace, ask.where.device)[name]
        found.append(timing(ask.row, "forward + backward", name, shape, ask.threads, seconds))
    return found


def plain_loop(model: Any, device: torch.device) -> Callable[[], Tensor]:
    """The likeliest token after the last one, the state overwritten, each operation launched from Python."""
    ids = torch.zeros(1, dtype=torch.long, device=device)
    state = owned(model.init_state(1))

    def step() -> Tensor:
        return ids.copy_(model.advance_(ids, state).argmax(-1))

    return step


def decoder_loop(decoder: Decoder, device: torch.device) -> Callable[[], Tensor]:
    """The same by what ``generate`` decodes with, which replays a CUDA graph where there is one.

    The step raises ValueError on a GPU where the graph could not be recorded: it would be the plain loop.
    """
    ids = torch.zeros(1, dtype=torch.long, device=device)

    def step() -> Tensor:
        found = ids.copy_(decoder.next(ids).argmax(-1))
        if device.type == "cuda" and decoder.uncaptured is not None:
            raise ValueError(f"there is no CUDA graph to measure: {decoder.uncaptured}")
        return found

    return step


def decode_rows(ask: Ask) -> list[Timing]:
    """Seconds a token at batch 1: as a CUDA graph, in a plain loop, and moving the weights' bytes."""
    device = ask.where.device
    vocab, (width, depth) = 50280, {"130m": (768, 24), "2.8b": (2560, 64)}[ask.kind]
    if ask.tiny:
        vocab, width, depth = 64, 16, 1
    shape = {"vocab": vocab, "d_model": width, "depth": depth}
    with torch.device(device):
        model = model_of(OURS, "mamba", vocab, width, depth).eval().to(ask.where.dtype)
    size = sum(p.nbytes for p in model.parameters())
    source = torch.ones(size // 8, device=device)
    into = torch.empty_like(source)
    floor = "a copy of as many bytes as the weights"
    steps = {
        "hippodrome, generate's loop": decoder_loop(Decoder(model, model.init_state(1)), device),
        "hippodrome, plain loop": plain_loop(model, device),
        floor: lambda: into.copy_(source),
    }
    with torch.no_grad():
        taken = take_turns({name: _several(step) for name, step in steps.items()}, ask.pace, device)
    return [
        timing(
            ask.row,
            "one token",
            name,
            shape,
            ask.threads,
            [s / TOKENS for s in seconds],
            floor=name == floor,
            dtype=ask.where.word,
        )
        for name, seconds in taken.items()
    ]


def _several(call: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(TOKENS):
            call()

    return run


LENGTHS = (1024, 4096, 16384, 65536)
ROWS = (
    Row(
        "gpu-selective-scan",
        "gpu",
        "Selective scan on a GPU, 1k to 1M tokens",
        "Rival: the CUDA kernel of `mamba_ssm`. At 1M tokens there are 256 channels, for both alike.",
        [
            *({"b": 1, "t": t, "d": 1536, "n": 16} for t in LENGTHS),
            {"b": 1, "t": 1048576, "d": 256, "n": 16},
        ],
        {"b": 1, "t": 32, "d": 16, "n": 4},
        selective_scan_row,
        dtypes=BOTH,
        rivals=("mamba-ssm",),
        memory=False,
    ),
    Row(
        "gpu-ssd",
        "gpu",
        "SSD on a GPU, 2k to 1M tokens",
        "Rivals: the Triton kernels of `mamba_ssm` and, as linear attention with a decay for each head, "
        "those of `flash-linear-attention`. At 1M tokens there are 4 heads, for all alike.",
        [
            *({"b": 1, "t": t, "h": 24, "p": 64, "n": 128} for t in (2048, 16384, 131072)),
            {"b": 1, "t": 1048576, "h": 4, "p": 64, "n": 128},
        ],
        {"b": 1, "t": 128, "h": 2, "p": 8, "n": 8},
        ssd_row,
        dtypes=BOTH,
        rivals=("mamba-ssm", "flash-linear-attention"),
        memory=False,
    ),
    Row(
        "gpu-linear-scan",
        "gpu",
        "Linear scan on a GPU, real",
        "The floor is a copy on the device of as many bytes: memory bandwidth. The share of it that the scan "
        "reaches is 1 over the ratio to the floor.",
        [{"b": 8, "t": t, "d": 1536} for t in (1024, 4096, 16384)],
        {"b": 2, "t": 32, "d": 16},
        _linear_scan,
        dtypes=BOTH,
        memory=False,
    ),
    Row(
        "gpu-linear-scan-complex",
        "gpu",
        "Linear scan on a GPU, complex",
        "The floor is a copy on the device of as many bytes.",
        [{"b": 8, "t": t, "d": 1024} for t in (1024, 4096)],
        {"b": 2, "t": 32, "d": 16},
        _linear_scan_complex,
        memory=False,
    ),
    *(
        Row(
            f"gpu-decode-{size}",
            "gpu",
            f"Decoding a token on a GPU, Mamba of the {size} shape, batch 1",
            "The floor is a copy on the device that moves as many bytes as the weights have.",
            measure=decode_rows,
            dtypes=BOTH,
            kind=size,
        )
        for size in ("130m", "2.8b")
    ),
    Row(
        "gpu-check",
        "gpu",
        "Values and gradients on a GPU against float64",
        "Each operator by the backend that its door chooses, in float32; the errors stand beside its name, "
        "over the largest value.",
        measure=check_rows,
    ),
)
"""The rows for a GPU."""
