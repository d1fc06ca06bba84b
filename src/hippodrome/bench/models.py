"""Rows of whole models: a training step, a prompt, a token beside a rival's; cost by length; streaming.

Every contender works in processes of its own, which take turns: two models may not fit in memory together,
and the peak of a process is then a contender's own.
"""

from typing import Any

import torch

from hippodrome.bench import rivals
from hippodrome.bench.measure import timing
from hippodrome.bench.process import in_process
from hippodrome.bench.row import Ask, Row, Timing

SHAPE = {"vocab": 50280, "d_model": 768, "depth": 24}
TINY_SHAPE = {"vocab": 64, "d_model": 16, "depth": 1}
ROUNDED = "hippodrome, int8 weights"
SMALL = {"d_model": 256, "depth": 4}
TINY_SMALL = {"d_model": 16, "depth": 1}


def _rival(kind: str, job: str) -> dict[str, dict[str, Any]]:
    """The rival's name and who it is to the worker, where its packages are there."""
    trained = job == "training_step"
    if not rivals.have("transformers") or (kind == "mamba" and trained and not rivals.have("mambapy")):
        return {}
    name = "transformers, chunk 64"
    if kind == "mamba":
        name = "transformers, mambapy" if trained else "transformers"
    return {name: {"who": "transformers"}}


def _in_turns(
    ask: Ask,
    job: str,
    floor_job: str,
    floors: dict[str, dict[str, Any]],
    rounds: int,
    shape: dict[str, int],
    **options: Any,
) -> tuple[dict[str, list[float]], dict[str, int | None], list[dict[str, Any]]]:
    """Seconds and peaks of each contender over so many rounds, and all that the first floor's job answered.

    ``floors`` are jobs of one kind by their names, each with the options that are its own.
    """
    who = {"hippodrome": {"who": "hippodrome"}, **_rival(ask.kind, job)}
    if job in ("prefill", "decode"):
        who[ROUNDED] = {"who": "hippodrome", "weights": "int8"}
    seconds: dict[str, list[float]] = {"hippodrome": [], **{floor: [] for floor in floors}}
    peaks: dict[str, int | None] = {}
    sizes: dict[str, int] = {}
    answers = []
    common = {"kind": ask.kind, "dtype": ask.where.word, **shape, **options}
    for _ in range(rounds):
        for name, more in who.items():
            found = in_process(job, ask.threads, {**common, **more})
            seconds.setdefault(name, []).extend(found["seconds"])
            peaks[name] = max(peaks.get(name) or 0, found["peak_bytes"] or 0) or None
            sizes[name] = found["parameters"]
        given = {k: v for k, v in common.items() if k != "tokens"} if floor_job == "read" else common
        for number, (floor, more) in enumerate(floors.items()):
            found = in_process(floor_job, ask.threads, {**given, **more})
            seconds[floor] += found["seconds"]
            answers += [found] if number == 0 else []
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{ask.row}: the models are not of one size: {sizes}")
    return seconds, peaks, answers


def _rows(
    ask: Ask,
    phase: str,
    shape: dict[str, int],
    seconds: dict[str, list[float]],
    peaks: dict[str, int | None],
    floors: set[str],
) -> list[Timing]:
    return [
        timing(
            ask.row,
            phase,
            who,
            shape,
            ask.threads,
            taken,
            floor=who in floors,
            peak_bytes=peaks.get(who),
            dtype=ask.where.word,
        )
        for who, taken in seconds.items()
    ]


def training_rows(ask: Ask) -> list[Timing]:
    """A training step of 1024 tokens: loss, backward, AdamW."""
    shape = {**(TINY_SHAPE if ask.tiny else SHAPE), "b": 1, "t": 16 if ask.tiny else 1024}
    floor, alone = "matrix products and fused AdamW", "matrix products alone"
    rounds, steps = (1, 1) if ask.tiny else (2, 2)
    seconds, peaks, floors = _in_turns(
        ask, "training_step", "training_products", {floor: {}}, rounds, shape, steps=steps
    )
    seconds[alone] = [s for found in floors for s in found["products"]]
    plain = f"PyTorch's own {floor}"
    if ask.where.dtype == torch.float32:
        seconds[plain] = [s for found in floors for s in found["plain"]]
    return _rows(ask, "training step", shape, seconds, peaks, {floor, alone, plain})


def prefill_rows(ask: Ask) -> list[Timing]:
    """A prompt of 512 tokens to the logits after its last."""
    shape = {**(TINY_SHAPE if ask.tiny else SHAPE), "t": 16 if ask.tiny else 512}
    floor = "matrix products alone"
    rounds, repeats = (1, 1) if ask.tiny else (3, 4)
    seconds, peaks, floors = _in_turns(
        ask, "prefill", "prefill_products", {floor: {}}, rounds, shape, repeats=repeats
    )
    plain = f"PyTorch's own {floor}"
    if ask.where.dtype == torch.float32:
        seconds[plain] = [s for found in floors for s in found["plain"]]
    return _rows(ask, "prompt", shape, seconds, peaks, {floor, plain})


def decode_rows(ask: Ask) -> list[Timing]:
    """One token after another, one row."""
    shape = TINY_SHAPE if ask.tiny else SHAPE
    floors: dict[str, dict[str, Any]] = {
        "reading the weights once": {},
        "reading int8 weights once": {"dtype": "int8"},
    }
    rounds, repeats, tokens = (1, 1, 2) if ask.tiny else (3, 4, 16)
    seconds, peaks, _ = _in_turns(
        ask, "decode", "read", floors, rounds, shape, repeats=repeats, tokens=tokens
    )
    return _rows(ask, "one token", shape, seconds, peaks, set(floors))


def length_rows(ask: Ask) -> list[Timing]:
    """Time of a training step with the same number of tokens, as many short rows and as few long ones."""
    small, most, rounds = (TINY_SMALL, 64, 2) if ask.tiny else (SMALL, 32768, 5)
    sizes = [[2**i, most // 2**i] for i in range(5, -1, -1)]
    found = in_process("lengths", ask.threads, {"shapes": sizes, "rounds": rounds, **small})
    rows = []
    for (b, t), taken in zip(sizes, found["seconds"], strict=True):
        each = [s / (b * t) for s in taken]
        size = {**small, "b": b, "t": t}
        phase = "per token of a step"
        rows.append(timing(ask.row, phase, f"hippodrome, t={t}", size, ask.threads, each))
    return rows


def stream_rows(ask: Ask) -> list[Timing]:
    """Streaming through the state: seconds a token, and how much the memory held has grown on the way."""
    small = TINY_SMALL if ask.tiny else SMALL
    tokens, piece, single = (512, 64, 8) if ask.tiny else (1_000_000, 4096, 2000)
    asked = {"tokens": tokens, "piece": piece, "single": single, **small}
    found = in_process("stream", ask.threads, asked)
    held = [h for h in found["held_bytes"] if h is not None]
    growth = max(held) - min(held) if held else None
    shape = {**small, "tokens": found["tokens"]}
    pieces, one = [found["seconds"][0] / found["tokens"]], [found["seconds_single"] / single]
    name, phase = f"hippodrome, pieces of {piece}", "memory grown, per token"
    return [
        timing(ask.row, phase, name, shape, ask.threads, pieces, peak_bytes=growth),
        timing(ask.row, "per token", "hippodrome, one by one", shape, ask.threads, one),
    ]


BOTH = ("float32", "bfloat16")
TRAINING = (
    "Rival: the model of `transformers` with as many parameters{rival}. Each step is loss, backward and "
    "AdamW in its fused form; bfloat16 is autocast. Memory is the peak of the process. The floor is the "
    "products of every linear map, forward and the two of the backward pass, in the same dtype, and AdamW "
    "over as many numbers, by the fastest product at hand; for float32 PyTorch's own stand beside it."
)
PREFILL = (
    "From a prompt of 512 tokens to the logits after its last token and the state, on both sides; weights "
    "are held in the dtype, and ours once more rounded to int8, everything else in the dtype. The floor is "
    "the products of every linear map, the head for one token, by the fastest product at hand; for float32 "
    "PyTorch's own stand beside it. Memory is the peak of the process."
)
DECODE = (
    "One row, greedy, in the loop of `generate`; the rival's model with its cache, called in a loop. Weights "
    "are held in the dtype, and ours once more rounded to int8, everything else in the dtype. The floors "
    "read as many bytes as the weights have, by a compiled sum over all threads."
)


def _of_kind(kind: str) -> list[Row]:
    name = {"mamba": "Mamba", "mamba2": "Mamba-2"}[kind]
    rival = ", with `use_mambapy=True`" if kind == "mamba" else ", at the chunk of 64 that suits a CPU best"
    common: dict[str, Any] = {"dtypes": BOTH, "kind": kind, "rivals": ("transformers",)}
    trained = {**common, "rivals": ("transformers", "mambapy")} if kind == "mamba" else common
    return [
        Row(
            f"train-130m-{kind}",
            "model",
            f"Training step, {name} of the 130m shape, 1024 tokens",
            TRAINING.format(rival=rival),
            measure=training_rows,
            **trained,
        ),
        Row(
            f"prefill-512-{kind}",
            "model",
            f"Reading a prompt of 512 tokens, {name} of the 130m shape",
            PREFILL,
            measure=prefill_rows,
            **common,
        ),
        Row(
            f"decode-130m-{kind}",
            "model",
            f"Decoding a token, {name} of the 130m shape",
            DECODE,
            measure=decode_rows,
            **common,
        ),
    ]


ROWS = (
    *_of_kind("mamba"),
    *_of_kind("mamba2"),
    Row(
        "length",
        "model",
        "Cost of training against length: a small Mamba over bytes",
        "The same number of tokens in every step, cut into many short rows or few long ones. Time is for one "
        "token.",
        measure=length_rows,
    ),
    Row(
        "stream",
        "model",
        "Streaming a million bytes through the state",
        "Memory is how much more the process held at any later time than after the first tenth.",
        measure=stream_rows,
    ),
)
"""The rows of whole models."""
