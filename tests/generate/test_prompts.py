"""Prompts of unequal lengths read together equal each read alone, chunked, from nothing or a state."""

import pytest
import torch

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.generate import generate, prefill, rows
from hippodrome.generate import prompts as reading
from hippodrome.generate.decoder import tensors
from hippodrome.layers.mlp import GatedMLP
from hippodrome.mixers.attention import Attention
from hippodrome.mixers.gated_delta_net import GatedDeltaNet
from hippodrome.mixers.gla import GatedLinearAttention
from hippodrome.mixers.gru import GRU
from hippodrome.mixers.mamba import Mamba
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.mixers.rg_lru import RGLRU
from hippodrome.mixers.s4d import S4D
from hippodrome.models.language import LanguageModel

VOCAB = 29
LENGTHS = [3, 9, 1, 6]
KINDS = {
    "mamba": lambda: Mamba(16),
    "mamba2": lambda: Mamba2(16),
    "attention": lambda: Attention(16, heads=4, kv_heads=2),
    "window": lambda: Attention(16, heads=4, window=4),
    "gla": lambda: GatedLinearAttention(16),
    "gru": lambda: GRU(16),
    "gated_delta_net": lambda: GatedDeltaNet(16),
    "rg_lru": lambda: RGLRU(16),
    "s4d": lambda: S4D(16),
    "hybrid": None,
}


def model_of(kind: str) -> LanguageModel:
    """Two blocks of a kind, or one of each of the first six, in float64 and away from the beginning."""
    makers = list(KINDS.values())[:6] if kind == "hybrid" else [KINDS[kind]] * 2
    blocks = [Block(make(), GatedMLP(16)) for make in makers]
    model = LanguageModel(Stack(blocks), VOCAB).double().eval()
    with torch.no_grad():
        model.embedding.weight.normal_()
    return model


def prompts(seed: int, lengths: list[int] = LENGTHS) -> list[torch.Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCAB, (n,), generator=numbers) for n in lengths]


def equal_states(found: tuple, expected: tuple) -> None:
    """Equal, slots of a cache beyond its tokens aside: those are empty."""
    for one, other in zip(tensors(found), tensors(expected), strict=True):
        slots = min(one.shape[1], other.shape[1]) if one.dim() > 1 else 0
        short = (slice(None), slice(slots)) if one.dim() > 1 else (slice(None),)
        torch.testing.assert_close(one[short], other[short], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "bounded"), [(kind, False) for kind in KINDS if kind != "hybrid"] + [("attention", True)]
)
def test_rows_read_together_are_rows_read_alone(kind, bounded):
    model, ids, again = model_of(kind), prompts(0), prompts(1, [2, 1, 5, 2])
    room = 24 if bounded else None
    alone = [prefill(model, row[None], max_length=room) for row in ids]
    longer = [torch.cat(pair)[None] for pair in zip(ids, again, strict=True)]
    later_alone = [prefill(model, row, max_length=room) for row in longer]
    for chunk in (64, 4):
        logits, state = prefill(model, ids, chunk=chunk, max_length=room)
        later, state_later = prefill(model, again, state, chunk=chunk // 2)
        for row in range(len(ids)):
            torch.testing.assert_close(logits[row], alone[row][0][0], rtol=1e-9, atol=1e-9)
            equal_states(rows.take(state, [row]), alone[row][1])
            torch.testing.assert_close(later[row], later_alone[row][0][0], rtol=1e-9, atol=1e-9)
            equal_states(rows.take(state_later, [row]), later_alone[row][1])


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_p": 0.9}], ids=str)
def test_a_batch_of_unequal_prompts_writes_what_each_writes_alone(options):
    model, ids = model_of("hybrid"), prompts(2)
    seeds = [9, 7, 5, 3]
    together = torch.stack(list(generate(model, ids, max_new_tokens=8, seed=seeds, **options)), 1)
    for row, prompt in enumerate(ids):
        alone = generate(model, prompt[None], max_new_tokens=8, seed=seeds[row], **options)
        assert together[row].tolist() == [int(found) for found in alone]
    endless = generate(model, ids, max_new_tokens=None, seed=seeds, **options)
    assert torch.equal(torch.stack([next(endless) for _ in range(8)], 1), together)


def test_chunks_bound_what_is_read_at_once():
    model, most = model_of("mamba2"), 0
    last = model.last

    def watched(inputs, state=None, **options):
        nonlocal most
        most = max(most, inputs.numel())
        return last(inputs, state, **options)

    model.last = watched
    prefill(model, prompts(0, [40, 33, 5]), chunk=8)
    assert most == 3 * 8


def test_a_row_that_begins_late_is_not_read_before(monkeypatch):
    model, read = model_of("gru"), []
    last = model.last

    def watched(inputs, state=None, **options):
        read.append((len(inputs), inputs.shape[1], options.get("resets") is not None))
        return last(inputs, state, **options)

    model.last = watched
    ids = prompts(0, [40, 34, 33, 5])
    monkeypatch.setattr(reading, "PIECE", 3)
    logits, _ = prefill(model, ids, chunk=10)
    rest = [(3, 10, False), (3, 10, False), (3, 6, False), (4, 5, False)]
    # A piece ends where a row begins; the one that begins a token later is padded.
    assert read == [(1, 6, False), (3, 3, True), *rest]
    for row, prompt in enumerate(ids):
        torch.testing.assert_close(logits[row], prefill(model, prompt[None])[0][0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([], "there is no prompt"),
        ([torch.tensor([1]), torch.empty(0, dtype=torch.long)], "prompt 2 has shape"),
        (torch.empty(2, 0, dtype=torch.long), "at least one token in a row"),
    ],
)
def test_prompts_that_cannot_be_read_are_refused(ids, said):
    with pytest.raises(ValueError, match=said):
        prefill(model_of("gru"), ids)


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="chunks of 1 token or more"):
        prefill(model_of("gru"), prompts(0), chunk=0)
