"""One measurement of a whole model in a process of its own, so that its peak memory is its own.

``python -m benchmarks.worker JOB '{"option": ...}'`` prints one JSON object on its last line.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hippodrome.config import build, stack_spec
from hippodrome.shapes import TokenBatch


def resident(key: str = "VmHWM") -> int | None:
    """Bytes this process holds (VmRSS) or held at most (VmHWM); None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) * 1024
    if key == "VmRSS":
        return None
    try:
        import resource
    except ImportError:
        return None
    # macOS counts bytes here.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def mamba(vocab: int, d_model: int, depth: int, seed: int = 0) -> nn.Module:
    """Our language model: Mamba blocks and nothing else, tied embedding."""
    torch.manual_seed(seed)
    backbone = stack_spec("mamba", d_model, depth, mlp=False)
    return build({"kind": "language", "vocab_size": vocab, "backbone": backbone})


def _transformers_mamba(vocab: int, d_model: int, depth: int) -> nn.Module:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=vocab,
        hidden_size=d_model,
        num_hidden_layers=depth,
        use_mambapy=True,
        use_cache=False,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return MambaForCausalLM(config)


def _stepper(who: str, vocab: int, d_model: int, depth: int, b: int, t: int) -> tuple[nn.Module, Callable]:
    """A model and a function that does one training step of it: loss, backward, AdamW."""
    tokens = torch.randint(1, vocab, (b, t + 1), generator=torch.Generator().manual_seed(0))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    loss: Callable[[], Tensor]
    model = (mamba if who == "hippodrome" else _transformers_mamba)(vocab, d_model, depth)
    if who == "hippodrome":
        batch = TokenBatch(inputs, targets)
        loss = lambda: model.loss(batch)  # type: ignore[operator]  # noqa: E731
    else:
        # It shifts the labels itself, so they are the inputs; one loss of t is missing.
        loss = lambda: model(input_ids=inputs, labels=inputs).loss  # noqa: E731
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        optimizer.step()
        return float(value.detach())

    return model, step


def training_step(
    who: str, vocab: int, d_model: int, depth: int, b: int, t: int, steps: int, warm: int = 1
) -> dict[str, Any]:
    """Seconds of each step after ``warm`` uncounted ones, and the peak of the process."""
    model, step = _stepper(who, vocab, d_model, depth, b, t)
    for _ in range(warm):
        step()
    seconds = []
    for _ in range(steps):
        before = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - before)
    return {
        "seconds": seconds,
        "peak_bytes": resident(),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def products(vocab: int, d_model: int, depth: int, b: int, t: int, steps: int) -> dict[str, Any]:
    """The matrix products of such a step alone: forward, and the two of the backward, for every linear map.

    No implementation that multiplies the same matrices in this precision can be faster.
    """
    inner, state, rank = 2 * d_model, 16, -(-d_model // 16)
    maps = [(d_model, 2 * inner), (inner, rank + 2 * state), (rank, inner), (inner, d_model)]
    rows = b * t
    pairs = [(torch.randn(rows, i), torch.randn(o, i), torch.randn(rows, o)) for i, o in maps]
    head = (torch.randn(rows, d_model), torch.randn(vocab, d_model), torch.randn(rows, vocab))

    def step() -> None:
        for x, w, g in [*pairs * depth, head]:
            torch.mm(x, w.T)
            torch.mm(g, w)
            torch.mm(g.T, x)

    step()
    seconds = []
    for _ in range(steps):
        before = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - before)
    return {"seconds": seconds, "peak_bytes": None}


def lengths(d_model: int, depth: int, shapes: list[list[int]], rounds: int) -> dict[str, Any]:
    """Seconds of a training step of a byte model for each (b, t), the shapes taken in turns."""
    steppers = {(b, t): _stepper("hippodrome", 256, d_model, depth, b, t)[1] for b, t in shapes}
    taken: dict[tuple[int, int], list[float]] = {shape: [] for shape in steppers}
    for step in steppers.values():
        step()
    for _ in range(rounds):
        for shape, step in steppers.items():
            before = time.perf_counter()
            step()
            taken[shape].append(time.perf_counter() - before)
    return {"seconds": [taken[b, t] for b, t in steppers], "peak_bytes": resident()}


def stream(d_model: int, depth: int, tokens: int, piece: int, single: int) -> dict[str, Any]:
    """Feed ``tokens`` bytes in pieces through the state, then ``single`` one by one; memory on the way."""
    model = mamba(256, d_model, depth).eval()
    generator = torch.Generator().manual_seed(0)
    held: list[int | None] = []
    with torch.inference_mode():
        state = model.init_state(1)  # type: ignore[operator]
        started, pieces = time.perf_counter(), tokens // piece
        for i in range(pieces):
            ids = torch.randint(256, (1, piece), generator=generator)
            _, state = model(ids, state)
            # The first tenth fills the allocator's pools.
            if i >= pieces // 10 and i % max(1, pieces // 20) == 0:
                held.append(resident("VmRSS"))
        in_pieces = time.perf_counter() - started
        started = time.perf_counter()
        for _ in range(single):
            ids = torch.randint(256, (1,), generator=generator)
            _, state = model.step(ids, state)  # type: ignore[operator]
        held.append(resident("VmRSS"))
        one_by_one = time.perf_counter() - started
    return {
        "tokens": pieces * piece,
        "seconds": [in_pieces],
        "seconds_single": one_by_one,
        "held_bytes": held,
        "peak_bytes": resident(),
    }


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    "training_step": training_step,
    "products": products,
    "lengths": lengths,
    "stream": stream,
}


def main() -> None:
    """Run the job named on the command line."""
    job, options = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(options.pop("threads"))
    sys.stdout.write("\n" + json.dumps(JOBS[job](**options)) + "\n")


if __name__ == "__main__":
    main()
