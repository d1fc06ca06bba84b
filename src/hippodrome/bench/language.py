"""Language models of the two Mamba shapes, ours and the rival's: a step, a prompt, a token, and their floors.

Each function is one job of a process; it returns what JSON can hold.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hippodrome.config import build, stack_spec
from hippodrome.generate.stream import generate, prefill
from hippodrome.layers.heads import head_size
from hippodrome.ops._threads import run_tiles
from hippodrome.ops.linear import linear
from hippodrome.quantize.weight_only import weight_only
from hippodrome.shapes import TokenBatch
from hippodrome.train.optimizer import adamw

OURS = "hippodrome"


def held() -> int | None:
    """Bytes this process holds now; None where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def model_of(who: str, kind: str, vocab: int, d_model: int, depth: int, *, trained: bool = False) -> Any:
    """Ours or the one of transformers: blocks of one kind and nothing else, tied embedding.

    To be trained, its Mamba has the scan of mambapy: the gradient of its own loop takes time that grows with
    the square of the length. For reading, its loop is the faster of the two.
    """
    torch.manual_seed(0)
    if who == OURS:
        backbone = stack_spec(kind, d_model, depth, mlp=False)
        return build({"kind": "language", "vocab_size": vocab, "backbone": backbone})
    from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM

    ends: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    sizes: dict[str, Any] = {"vocab_size": vocab, "hidden_size": d_model, "num_hidden_layers": depth}
    if kind == "mamba":
        return MambaForCausalLM(MambaConfig(use_mambapy=trained, **sizes, **ends))
    head = head_size(2 * d_model)
    config = Mamba2Config(
        num_heads=2 * d_model // head,
        head_dim=head,
        state_size=128,
        n_groups=1,
        chunk_size=64,
        tie_word_embeddings=True,
        **sizes,
        **ends,
    )
    return Mamba2ForCausalLM(config)


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _clocked(call: Callable[[], Any], times: int, warm: int = 1) -> list[float]:
    for _ in range(warm):
        call()
    seconds = []
    for _ in range(times):
        before = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - before)
    return seconds


def _stepper(
    who: str, kind: str, vocab: int, d_model: int, depth: int, b: int, t: int, dtype: str = "float32"
) -> tuple[nn.Module, Callable[[], float]]:
    """A model and a function that does one training step of it: loss, backward, AdamW in its fused form."""
    tokens = torch.randint(1, vocab, (b, t + 1), generator=torch.Generator().manual_seed(0))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    model = model_of(who, kind, vocab, d_model, depth, trained=True).train()
    loss: Callable[[], Tensor]
    if who == OURS:
        batch = TokenBatch(inputs, targets)
        optimizer = adamw(model, 1e-4, 0.1, (0.9, 0.95))
        loss = lambda: model.loss(batch)  # noqa: E731
    else:
        # It shifts the labels itself, so they are the inputs; one loss of t is missing.
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        loss = lambda: model(input_ids=inputs, labels=inputs, use_cache=False).loss  # noqa: E731

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            value = loss()
        value.backward()
        optimizer.step()
        return float(value.detach())

    return model, step


def training_step(
    who: str,
    kind: str,
    vocab: int,
    d_model: int,
    depth: int,
    b: int,
    t: int,
    steps: int,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Seconds of each step after an uncounted one; ValueError where the loss is no number."""
    model, step = _stepper(who, kind, vocab, d_model, depth, b, t, dtype)
    seconds = _clocked(step, steps)
    if not math.isfinite(last := step()):
        raise ValueError(f"the loss of {who} in {dtype} came to {last}")
    return {"seconds": seconds, "peak_bytes": None, "parameters": _parameters(model)}


def maps_of(kind: str, d_model: int) -> list[tuple[int, int]]:
    """(inputs, outputs) of the linear maps of one layer."""
    inner = 2 * d_model
    if kind == "mamba":
        rank = -(-d_model // 16)
        return [(d_model, 2 * inner), (inner, rank + 32), (rank, inner), (inner, d_model)]
    return [(d_model, 2 * inner + 256 + inner // head_size(inner)), (inner, d_model)]


def training_products(
    kind: str, vocab: int, d_model: int, depth: int, b: int, t: int, steps: int, dtype: str = "float32"
) -> dict[str, Any]:
    """The matrix products of such a step alone, then also AdamW over as many numbers in its fused form.

    Forward, and the two of the backward pass, for every linear map: no implementation that multiplies the
    same matrices in this precision can be faster. Once by the fastest product that we know of here
    ("seconds", "products"), once by PyTorch's own ("plain").
    """
    maps, rows, half = maps_of(kind, d_model), b * t, getattr(torch, dtype)
    shapes = [*maps, (d_model, vocab)]
    narrow = {"dtype": half}
    each = [
        (torch.randn(rows, i, **narrow), torch.randn(o, i, **narrow), torch.randn(rows, o, **narrow))
        for i, o in shapes
    ]
    todo = each[:-1] * depth + each[-1:]
    weights = [torch.zeros(o, i, requires_grad=True) for i, o in maps * depth + shapes[-1:]]
    for weight in weights:
        weight.grad = torch.full_like(weight, 1e-3)
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)

    def products(multiply: Callable[[Tensor, Tensor], Any]) -> None:
        for x, w, g in todo:
            multiply(x, w)
            multiply(g, w.T)
            multiply(g.T, x.T)

    def step(multiply: Callable[[Tensor, Tensor], Any]) -> None:
        with torch.no_grad():
            products(multiply)
        optimizer.step()

    with torch.no_grad():
        alone = _clocked(lambda: products(linear), steps)
    return {
        "seconds": _clocked(lambda: step(linear), steps),
        "products": alone,
        "plain": _clocked(lambda: step(F.linear), steps),
    }


def _reader(
    who: str, kind: str, vocab: int, d_model: int, depth: int, dtype: str, weights: str | None
) -> tuple[Any, int]:
    """A model for reading, its weights held in the dtype or rounded to ``weights``, and its parameters."""
    model = model_of(who, kind, vocab, d_model, depth).eval().to(getattr(torch, dtype))
    count = _parameters(model)
    if weights is not None:
        weight_only(model, dtype=weights)
    return model, count


def prefill_seconds(
    who: str,
    kind: str,
    vocab: int,
    d_model: int,
    depth: int,
    t: int,
    repeats: int,
    dtype: str = "float32",
    weights: str | None = None,
) -> dict[str, Any]:
    """Seconds from a prompt to the logits after its last token and the state, weights held in the dtype.

    ``weights`` "int8" rounds ours, and the dtype is then that of everything else.
    """
    model, count = _reader(who, kind, vocab, d_model, depth, dtype, weights)
    ids = torch.randint(1, vocab, (1, t), generator=torch.Generator().manual_seed(0))
    run: Callable[[], Any] = lambda: prefill(model, ids)  # noqa: E731
    if who != OURS:
        run = lambda: model(ids, use_cache=True, logits_to_keep=1).logits  # noqa: E731
    with torch.inference_mode():
        seconds = _clocked(run, repeats)
    return {"seconds": seconds, "peak_bytes": None, "parameters": count}


def prefill_products(
    kind: str, vocab: int, d_model: int, depth: int, t: int, repeats: int, dtype: str = "float32"
) -> dict[str, Any]:
    """The matrix products of reading a prompt: every linear map, and the head for one token.

    By the fastest product that we know of here ("seconds"), and by PyTorch's own ("plain").
    """
    half = {"dtype": getattr(torch, dtype)}
    pairs = [(torch.randn(t, i, **half), torch.randn(o, i, **half)) for i, o in maps_of(kind, d_model)]
    # Weights of their own for every layer, as in the model: those of one would stay in the caches.
    pairs = [(x, w.clone()) for _ in range(depth) for x, w in pairs]
    pairs.append((torch.randn(1, d_model, **half), torch.randn(vocab, d_model, **half)))

    def run(multiply: Callable[[Tensor, Tensor], Any]) -> None:
        for x, w in pairs:
            multiply(x, w)

    with torch.no_grad():
        found = [_clocked(partial(run, multiply), repeats) for multiply in (linear, F.linear)]
    return {"seconds": found[0], "plain": found[1]}


def _tokens_of(who: str, model: Any, prompt: Tensor) -> Iterator[Tensor]:
    """The likeliest next token, and so on without end."""
    if who == OURS:
        yield from generate(model, prompt, max_new_tokens=None, temperature=0)
        return
    with torch.inference_mode():
        answer = model(prompt, use_cache=True, logits_to_keep=1)
        while True:
            ids = answer.logits[:, -1].argmax(-1)
            yield ids
            answer = model(ids[:, None], cache_params=answer.cache_params, use_cache=True)


def decode_seconds(
    who: str,
    kind: str,
    vocab: int,
    d_model: int,
    depth: int,
    tokens: int,
    repeats: int,
    dtype: str = "float32",
    weights: str | None = None,
) -> dict[str, Any]:
    """Seconds a token of continuing a prompt of 16 tokens, one row, greedily; options as for a prompt."""
    model, count = _reader(who, kind, vocab, d_model, depth, dtype, weights)
    prompt = torch.randint(1, vocab, (1, 16), generator=torch.Generator().manual_seed(0))
    stream = _tokens_of(who, model, prompt)

    def some() -> None:
        for _ in range(tokens):
            next(stream)

    seconds = [s / tokens for s in _clocked(some, repeats)]
    return {"seconds": seconds, "peak_bytes": None, "parameters": count}


def read_seconds(
    kind: str, vocab: int, d_model: int, depth: int, repeats: int, dtype: str = "float32"
) -> dict[str, Any]:
    """Seconds to read the bytes of such a model's weights once, as fast as compiled code does.

    With "int8" the scales of the outputs are read too.
    """
    from hippodrome.bench._read_kernel import read

    maps = [(d_model, vocab), *maps_of(kind, d_model) * depth]
    count = sum(i * o for i, o in maps) * getattr(torch, dtype).itemsize
    if dtype == "int8":
        count += 4 * sum(o for _, o in maps)
    numbers = count // 4
    width = min(65536, max(64, numbers // 64 * 64))
    numbers = max(width, numbers)
    x = torch.ones(numbers).numpy()
    sums = torch.zeros(numbers // width).numpy()
    return {"seconds": _clocked(lambda: run_tiles(read, len(sums), x, width, sums), repeats, warm=2)}


def lengths(d_model: int, depth: int, shapes: list[list[int]], rounds: int) -> dict[str, Any]:
    """Seconds of a training step of a byte model for each (b, t), the shapes taken in turns."""
    steppers = {(b, t): _stepper(OURS, "mamba", 256, d_model, depth, b, t)[1] for b, t in shapes}
    taken: dict[tuple[int, int], list[float]] = {shape: [] for shape in steppers}
    for step in steppers.values():
        step()
    for _ in range(rounds):
        for shape, step in steppers.items():
            taken[shape] += _clocked(step, 1, warm=0)
    return {"seconds": [taken[b, t] for b, t in steppers], "peak_bytes": None}


def stream(d_model: int, depth: int, tokens: int, piece: int, single: int) -> dict[str, Any]:
    """Feed ``tokens`` bytes in pieces through the state, then ``single`` one by one; memory on the way."""
    model = model_of(OURS, "mamba", 256, d_model, depth).eval()
    generator = torch.Generator().manual_seed(0)
    memory: list[int | None] = []
    with torch.inference_mode():
        state = model.init_state(1)
        started, pieces = time.perf_counter(), tokens // piece
        for i in range(pieces):
            ids = torch.randint(256, (1, piece), generator=generator)
            _, state = model(ids, state)
            # The first tenth fills the allocator's pools.
            if i >= pieces // 10 and i % max(1, pieces // 20) == 0:
                memory.append(held())
        in_pieces = time.perf_counter() - started
        started = time.perf_counter()
        for _ in range(single):
            ids = torch.randint(256, (1,), generator=generator)
            _, state = model.step(ids, state)
        memory.append(held())
        one_by_one = time.perf_counter() - started
    return {
        "tokens": pieces * piece,
        "seconds": [in_pieces],
        "seconds_single": one_by_one,
        "held_bytes": memory,
        "peak_bytes": None,
    }
