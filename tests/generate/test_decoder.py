"""The decoder: loops of ``advance_`` on a state of their own are loops of ``step``, in constant memory."""

import pytest
import torch

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.generate import generate
from hippodrome.generate.decoder import Decoder, grows, owned, tensors
from hippodrome.layers.mlp import GatedMLP
from hippodrome.mixers.attention import Attention
from hippodrome.mixers.gla import GatedLinearAttention
from hippodrome.mixers.mamba import Mamba
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.mixers.s4d import S4D
from hippodrome.models.language import LanguageModel

MIXERS = [Mamba, Mamba2, GatedLinearAttention, MinGRU, S4D]


def model_of(*mixers, dtype=torch.float32) -> LanguageModel:
    blocks = [Block(mixer, GatedMLP(mixer.d_model)) for mixer in mixers]
    return LanguageModel(Stack(blocks), 50).to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", MIXERS, ids=lambda kind: kind.__name__)
def test_a_greedy_continuation_is_that_of_steps(kind, dtype):
    model = model_of(kind(16), kind(16), dtype=dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
        logits, state = model(torch.randint(50, (2, 5)))
        before = [x.clone() for x in tensors(state)]
        decoder = Decoder(model, state)
        assert decoder.in_place
        ids = logits[:, -1].argmax(-1)
        for _ in range(64):
            logits, state_after = model.step(ids, state)
            found = decoder.next(ids)
            torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-5)
            assert torch.equal(found.argmax(-1), logits.argmax(-1))
            state, ids = state_after, logits.argmax(-1)
    for mine, other in zip(tensors(decoder.state), tensors(state), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    assert len(before) == len(list(tensors(state)))


def test_the_state_handed_in_is_left_alone():
    model = model_of(Mamba(16))
    state = model.init_state(2)
    decoder = Decoder(model, state)
    decoder.next(torch.tensor([1, 2]))
    assert all(not x.any() for x in tensors(state))
    assert any(x.any() for x in tensors(decoder.state))


def test_states_that_grow_go_by_steps():
    model = model_of(Mamba(16), Attention(16))
    assert grows(model)
    assert not grows(model_of(Mamba(16), Attention(16, window=4)))
    bounded = [int(t) for t in generate(model, torch.tensor([[3, 1]]), max_new_tokens=9, temperature=0.0)]
    endless = generate(model, torch.tensor([[3, 1]]), max_new_tokens=None, temperature=0.0)
    assert [int(next(endless)) for _ in range(9)] == bounded


def test_a_copy_owns_its_memory_and_keeps_its_form():
    state = model_of(Mamba(16), Mamba2(16)).init_state(2)
    copy = owned(state)
    for old, new in zip(state, copy, strict=True):
        assert type(old) is type(new)
        for x, y in zip(old, new, strict=True):
            assert torch.equal(x, y)
            assert x.data_ptr() != y.data_ptr() or not x.numel()
    view = torch.arange(12.0).view(3, 4)[:, 1:]
    assert owned((view,))[0].is_contiguous()


def test_a_long_stream_holds_no_more_memory_at_its_end():
    import resource

    model = model_of(Mamba(64), Mamba2(64))
    stream = generate(model, torch.tensor([[3, 1]]), max_new_tokens=None, seed=0)
    for _ in range(200):
        next(stream)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(1000):
        next(stream)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096
