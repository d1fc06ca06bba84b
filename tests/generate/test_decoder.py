"""The decoder: loops of ``advance_`` on a state of their own are loops of ``step``, in constant memory."""

import pytest
import torch

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.generate import generate, graph
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


def recorded_later(call):
    """What ``graph.record`` does, on a CPU: nothing runs now, and each replay writes to the same output."""
    output = torch.zeros(2, 50)

    def replay():
        output.copy_(call())

    return replay, output


def test_a_recorded_token_continues_where_the_loop_was(monkeypatch):
    model = model_of(Mamba(16), Mamba2(16))
    ids = torch.randint(50, (12, 2))
    plain, recorded = (Decoder(model, model.init_state(2)) for _ in range(2))
    expected = [plain.next(x) for x in ids]
    assert "a CUDA graph runs on a CUDA device" in str(graph.refusal(ids[0], True))
    monkeypatch.setattr(graph, "refusal", lambda ids, in_place: None)
    monkeypatch.setattr(graph, "record", recorded_later)
    found = [recorded.next(x) for x in ids]
    assert recorded.uncaptured is None
    assert recorded._replay is not None
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


def test_a_graph_of_weights_that_were_replaced_is_dropped(monkeypatch):
    model = model_of(Mamba(16))
    monkeypatch.setattr(graph, "refusal", lambda ids, in_place: None)
    monkeypatch.setattr(graph, "record", recorded_later)
    decoder, ids = Decoder(model, model.init_state(2)), torch.tensor([1, 2])
    for _ in range(5):
        decoder.next(ids)
    assert decoder._replay is not None
    model.to(torch.bfloat16)
    assert decoder.next(ids).dtype == torch.bfloat16
    assert "replaced" in str(decoder.uncaptured)


def test_what_no_graph_can_hold_is_said_and_runs_as_before(monkeypatch):
    model = model_of(Mamba(16))
    ids = torch.randint(50, (6, 2))
    plain, failing = (Decoder(model, model.init_state(2)) for _ in range(2))
    expected = [plain.next(x) for x in ids]

    def record(call):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graph, "refusal", lambda ids, in_place: None)
    monkeypatch.setattr(graph, "record", record)
    assert all(torch.equal(failing.next(x), y) for x, y in zip(ids, expected, strict=True))
    assert "could not be recorded (operation not permitted" in str(failing.uncaptured)


def test_a_growing_state_is_never_recorded():
    model = model_of(Attention(16))
    decoder = Decoder(model, model.init_state(2))
    decoder.next(torch.tensor([1, 2]))
    assert "grows with each token" in str(decoder.uncaptured)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device to record a graph on")
@pytest.mark.parametrize("kind", [*MIXERS, Attention], ids=lambda kind: kind.__name__)
def test_a_graph_gives_what_the_loop_gives(kind):
    model = model_of(kind(16), kind(16)).cuda()
    prompt = torch.randint(50, (2, 5)).cuda()
    with torch.no_grad():
        logits, state = model(prompt, model.init_state(2, 40))
    decoder = Decoder(model, state, fixed=True)
    for _ in range(30):
        ids = logits.argmax(-1) if logits.dim() == 2 else logits[:, -1].argmax(-1)
        with torch.no_grad():
            logits, state = model.step(ids, state)
        torch.testing.assert_close(decoder.next(ids), logits, rtol=1e-4, atol=1e-4)
    assert decoder.uncaptured is None
    assert decoder._replay is not None
