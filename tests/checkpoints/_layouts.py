"""What every layout must hold: logits, greedy text and the way back, beside the ``transformers`` package."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hippodrome import checkpoints
from hippodrome.runs import Run

TIMES = 19
CLOSE = 1e-5
"""Of the largest logit, in float32."""


@contextmanager
def unchecked() -> Iterator[None]:
    """No checks of shapes, which take three quarters of a long loop, where a shorter one was checked."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def moved(model: nn.Module, size: float = 0.15) -> nn.Module:
    """Every weight moved, so that none is one or zero throughout."""
    numbers = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_((size * torch.randn(p.shape, generator=numbers)).to(p.dtype))
    return model.eval()


def saved(model: nn.Module, folder: Path, **options: Any) -> Path:
    """The folder of a checkpoint as the package writes it."""
    model.save_pretrained(folder, **options)
    return folder


def tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder by name."""
    return {k: v for path in sorted(folder.glob("*.safetensors")) for k, v in load_file(path).items()}


def ids_of(words: int, times: int = TIMES, rows: int = 2) -> Tensor:
    """Token ids, none of which is below 3: the package masks those equal to its padding."""
    return torch.randint(3, words, (rows, times), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def full(theirs: nn.Module, ids: Tensor) -> Tensor:
    """The logits of one uncached call: the package's cached forms are wrong in places."""
    logits: Tensor = theirs(input_ids=ids, use_cache=False).logits
    return logits


def close(got: Tensor, expected: Tensor, tolerance: float = CLOSE) -> None:
    """Whether logits are the same but for rounding."""
    assert expected.std() > 0.05
    assert (got - expected).abs().max() < tolerance * expected.abs().max()


@torch.no_grad()
def check_logits(run: Run, theirs: nn.Module) -> None:
    """One call, chunks, one token after the other, and rows of unequal length padded on either side."""
    model, words = run.model, run.spec["vocab_size"]
    ids = ids_of(words)
    expected = full(theirs, ids)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in theirs.parameters())
    close(model(ids)[0], expected)
    first, state = model(ids[:, :7])
    close(torch.cat([first, model(ids[:, 7:], state)[0]], 1), expected)
    state = model.init_state(2, TIMES)
    steps = [model.advance_(ids[:, t], state) for t in range(4)]
    with unchecked():
        steps += [model.advance_(ids[:, t], state) for t in range(4, TIMES)]
    close(torch.stack(steps, 1), expected)
    # The second row has five tokens less: in front of it, then behind it, lies something else.
    short = full(theirs, ids[1:, :-5])
    left = torch.cat([ids[1:, -5:], ids[1:, :-5]], 1)
    resets = torch.zeros(2, TIMES, dtype=torch.bool)
    resets[1, 5] = True
    got = model(torch.cat([ids[:1], left]), resets=resets)[0]
    close(got[:1], expected[:1])
    close(got[1:, 5:], short)
    close(model(ids)[0][1:, :-5], short)


@torch.no_grad()
def check_greedy(run: Run, theirs: nn.Module, count: int = 64) -> None:
    """The likeliest continuation, token by token of ours and by full calls of theirs."""
    ids = ids_of(run.spec["vocab_size"], 5, 1)
    logits, state = run.model.last(ids, run.model.init_state(1, 5 + count))
    made = []
    with unchecked():
        for _ in range(count):
            made.append(int(logits.argmax()))
            logits = run.model.advance_(torch.tensor(made[-1:]), state)
    whole = torch.cat([ids, torch.tensor([made])], 1)
    expected = full(theirs, whole)[0, 4:-1]
    for got, row in zip(made, expected, strict=True):
        best = row.topk(2).values
        if int(row.argmax()) != got:
            assert best[0] - best[1] < 1e-4
            return
    assert len(set(made)) > 1, "a continuation of one token over and over would show nothing"


def check_way_back(source: Path, place: Path, reopen: Any) -> None:
    """Exported, the tensors are the same bits under the same names, and the package reads them."""
    checkpoints.convert(source, place / "run")
    checkpoints.export(place / "run", place / "back")
    before, after = tensors(source), tensors(place / "back")
    assert set(before) == set(after)
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype, name
        assert torch.equal(tensor, after[name]), name
    assert json.loads((place / "back" / "config.json").read_text()) == json.loads(
        (source / "config.json").read_text()
    )
    again = reopen.from_pretrained(place / "back").eval()
    ids = ids_of(20)
    close(full(again, ids), full(reopen.from_pretrained(source).eval(), ids), 1e-12)


def check_refusals(source: Path, name: str) -> None:
    """A tensor that is missing, one too many, and one of another shape are named; the folder is mended."""
    path = source / "model.safetensors"
    whole = load_file(path)
    assert name in whole
    wrong = {
        f"{name} is missing": {k: v for k, v in whole.items() if k != name},
        "stranger.weight is not known": {**whole, "stranger.weight": torch.zeros(2)},
        f"{name} has shape": {**whole, name: torch.zeros(*whole[name].shape[:-1], whole[name].shape[-1] + 1)},
    }
    for sentence, held in wrong.items():
        save_file(held, path, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=sentence):
            checkpoints.open_model(source)
    save_file(whole, path, metadata={"format": "pt"})


def check_layout(theirs: nn.Module, place: Path, needed: str) -> Run:
    """All of it for a model of the package; ``needed`` is a name of a tensor there."""
    source = saved(theirs, place / "theirs")
    run = checkpoints.open_model(source, dtype="float32")
    check_logits(run, theirs)
    check_greedy(run, theirs)
    check_way_back(source, place, type(theirs))
    check_refusals(source, needed)
    return run
