"""Prompts of unequal lengths read together equal each read alone, chunked, from nothing or a state."""

import pytest
import torch

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.generate import generate, prefill, rows
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
LENGTHS = [3, 11, 1, 11, 6]
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
    """Two blocks of a kind, or one of each of the first four, in float64 and away from the beginning."""
    makers = list(KINDS.values())[:4] if kind == "hybrid" else [KINDS[kind]] * 2
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


@pytest.mark.parametrize("bounded", [False, True], ids=["grows", "bounded"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_read_together_are_rows_read_alone(kind, bounded):
    model, ids = model_of(kind), prompts(0)
    room = 24 if bounded else None
    for chunk in (64, 4, 1):
        logits, state = prefill(model, ids, chunk=chunk, max_length=room)
        again = prompts(1, [2, 1, 7, 4, 2])
        after, later = prefill(model, again, state, chunk=max(1, chunk // 2))
        for row, (first, second) in enumerate(zip(ids, again, strict=True)):
            alone, state_alone = prefill(model, first[None], max_length=room)
            torch.testing.assert_close(logits[row], alone[0], rtol=1e-9, atol=1e-9)
            equal_states(rows.take(state, [row]), state_alone)
            alone, state_alone = prefill(model, torch.cat([first, second])[None], max_length=room)
            torch.testing.assert_close(after[row], alone[0], rtol=1e-9, atol=1e-9)
            equal_states(rows.take(later, [row]), state_alone)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_unequal_prompts_writes_what_each_writes_alone(kind):
    model, ids = model_of(kind), prompts(2)
    for options in ({"temperature": 0.0}, {"temperature": 1.0, "top_p": 0.9, "seed": [9, 7, 5, 3, 1]}):
        together = torch.stack(list(generate(model, ids, max_new_tokens=12, **options)), 1)
        for row, prompt in enumerate(ids):
            alone = options | {"seed": options["seed"][row]} if "seed" in options else options
            found = torch.stack(list(generate(model, prompt[None], max_new_tokens=12, **alone)), 1)
            assert torch.equal(together[row], found[0])
    endless = generate(model, ids, max_new_tokens=None, **options)
    assert torch.equal(torch.stack([next(endless) for _ in range(12)], 1), together)


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


def test_a_row_that_begins_late_is_not_read_before():
    model, read = model_of("gru"), []
    last = model.last

    def watched(inputs, state=None, **options):
        read.append(len(inputs))
        return last(inputs, state, **options)

    model.last = watched
    prefill(model, prompts(0, [40, 33, 5]), chunk=10)
    assert read == [2, 2, 2, 3]


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
