"""Recorded tokens: replays give what the loop gives, and what cannot be recorded goes on as before."""

import ctypes
import multiprocessing
import threading

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.generate import tape
from hippodrome.generate.decoder import Decoder, owned, tensors
from hippodrome.layers.mlp import FeedForward, GatedMLP
from hippodrome.mixers.attention import Attention
from hippodrome.mixers.mamba import Mamba
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.mixers.mlp import PointwiseMLP
from hippodrome.mixers.mom import MixtureOfMemories
from hippodrome.models.language import LanguageModel
from hippodrome.quantize.weight_only import weight_only

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}
STACKS = {
    "mamba": lambda: [Mamba(24), Mamba(24, norms="learned")],
    "mamba2": lambda: [Mamba2(32, head_dim=16), Mamba2(32, d_ssm=32, D_per_channel=True)],
    "ungated": lambda: [Mamba2(32, norm=False), Mamba2(32, norm_before_gate=True, dt_high=0.1)],
    "attention": lambda: [Attention(32, 4, 2), Attention(32, 4, 1, window=5, rope_share=0.5, bias=True)],
    "hybrid": lambda: [Mamba(16), PointwiseMLP(16), PointwiseMLP(16, gated=False, bias=True), MinGRU(16)],
}


@pytest.fixture(autouse=True)
def _early(monkeypatch):
    """Record the third token, not the ninth."""
    monkeypatch.setattr(tape, "WARM_UP", 2)


def model_of(
    blocks: list[nn.Module], dtype: torch.dtype = torch.float32, *, mlp: bool = False
) -> LanguageModel:
    stack = Stack([Block(mixer, GatedMLP(mixer.d_model) if mlp else None) for mixer in blocks])
    model = LanguageModel(stack, 60).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model.to(dtype)


def close(found, expected, dtype):
    scale = expected.abs().max()
    assert (found - expected).abs().max() <= TOLERANCE[dtype] * scale


@pytest.mark.parametrize("rows", [1, 3, 9])
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("name", list(STACKS))
def test_replays_are_steps(name, dtype, rows):
    torch.manual_seed(0)
    model = model_of(STACKS[name](), dtype, mlp=name == "mamba")
    state = model.init_state(rows, 40)
    decoder = Decoder(model, state, fixed=True)
    own = owned(state)
    with torch.no_grad():
        for ids in torch.randint(60, (12, rows)):
            found, expected = decoder.next(ids), model.advance_(ids, own)
            close(found, expected, dtype)
    assert decoder.uncaptured is None
    assert isinstance(decoder._replay, tape.Replay)
    for x, y in zip(tensors(decoder.state), tensors(own), strict=True):
        close(x, y, dtype)


def test_a_replay_repeats_itself_bit_for_bit():
    model = model_of(STACKS["mamba2"]())
    ids = torch.randint(60, (10, 2))
    first, second = (Decoder(model, model.init_state(2)) for _ in range(2))
    for row in ids:
        assert torch.equal(first.next(row), second.next(row))


def test_logits_stay_when_the_next_token_comes():
    model = model_of([Mamba(16)])
    decoder = Decoder(model, model.init_state(1))
    kept = [decoder.next(torch.tensor([i])) for i in range(6)]
    copies = [x.clone() for x in kept]
    decoder.next(torch.tensor([7]))
    assert all(torch.equal(x, y) for x, y in zip(kept, copies, strict=True))


def test_a_full_cache_says_so_from_a_replay_too():
    model = model_of([Attention(16), Mamba(16)])
    decoder = Decoder(model, model.init_state(1, 5), fixed=True)
    for i in range(5):
        decoder.next(torch.tensor([i]))
    assert decoder._replay is not None
    with pytest.raises(ValueError, match="This cache has 5 slots, 5 of them filled"):
        decoder.next(torch.tensor([5]))


def test_what_cannot_be_recorded_says_so_and_goes_on():
    model = model_of([MixtureOfMemories.example()])
    state = model.init_state(2)
    decoder, own = Decoder(model, state), owned(state)
    with torch.no_grad():
        for ids in torch.randint(60, (6, 2)):
            assert torch.equal(decoder.next(ids), model.advance_(ids, own))
    assert "a token of this model could not be recorded (aten." in str(decoder.uncaptured)


def test_what_reads_a_value_back_is_refused():
    class Peeking(nn.Module):
        def forward(self, x):
            return x * 2 if x.tolist()[0][0] > 0 else x

    model = model_of([Mamba(16)])
    model.backbone.norm = Peeking()
    decoder = Decoder(model, model.init_state(1))
    for i in range(5):
        decoder.next(torch.tensor([i]))
    assert "reads a value back" in str(decoder.uncaptured)


def test_a_replay_that_is_wrong_is_not_used(monkeypatch):
    monkeypatch.setattr(tape.Tape, "replay", lambda self: None)
    model = model_of([Mamba(16)])
    decoder, own = Decoder(model, model.init_state(1)), model.init_state(1)
    with torch.no_grad():
        for i in range(5):
            assert torch.equal(decoder.next(torch.tensor([i])), model.advance_(torch.tensor([i]), own))
    assert "another result" in str(decoder.uncaptured)


def test_parameters_that_change_are_noticed():
    model = model_of([Mamba(16)])
    decoder, own = Decoder(model, model.init_state(1)), model.init_state(1)
    with torch.no_grad():
        for i in range(8):
            if i == 5:
                assert decoder._replay is not None
                for p in model.parameters():
                    p.mul_(1.1)
            close(decoder.next(torch.tensor([i])), model.advance_(torch.tensor([i]), own), torch.float32)
    assert "a parameter was written to" in str(decoder.uncaptured)


def other_values(model):
    return {name: 1.1 * p.detach() for name, p in model.state_dict().items()}


def move(model):
    for p in model.parameters():
        p.data = 1.1 * p.data


CHANGES = {
    "converted": lambda model: model.to(torch.bfloat16),
    "rounded": weight_only,
    "loaded": lambda model: model.load_state_dict(other_values(model), assign=True),
    "moved": move,
    "another part": lambda model: setattr(model.backbone.blocks, "0", Block(Mamba(16))),
    "another tensor": lambda model: setattr(
        model.embedding, "weight", nn.Parameter(torch.randn_like(model.embedding.weight))
    ),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_weights_that_are_replaced_are_noticed(change):
    torch.manual_seed(0)
    model = model_of([Mamba(16)])
    decoder, own = Decoder(model, model.init_state(1)), model.init_state(1)
    with torch.no_grad():
        for i in range(8):
            if i == 5:
                assert decoder._replay is not None
                CHANGES[change](model)
            found, expected = decoder.next(torch.tensor([i])), model.advance_(torch.tensor([i]), own)
            assert found.dtype == expected.dtype
            close(found, expected, expected.dtype)
    assert "replaced" in str(decoder.uncaptured)


@pytest.mark.parametrize("rounded", [False, True])
def test_an_id_beyond_the_table_is_refused_by_a_replay_too_and_leaves_the_state(rounded):
    torch.manual_seed(0)
    model = model_of([Mamba(16)])
    if rounded:
        weight_only(model)
    decoder, own = Decoder(model, model.init_state(1)), model.init_state(1)
    with torch.no_grad():
        for i in range(8):
            if i > 4:
                assert decoder._replay is not None
                for wrong in (60, -1):
                    with pytest.raises(IndexError):
                        decoder.next(torch.tensor([wrong]))
            close(decoder.next(torch.tensor([i])), model.advance_(torch.tensor([i]), own), torch.float32)
    with pytest.raises((RuntimeError, TypeError)):
        decoder.next(torch.tensor([1, 2]))


def test_what_was_taken_for_constant_and_is_not_is_found_out():
    class Spying(nn.Module):
        def forward(self, x):
            return x * (1 + ctypes.c_float.from_address(x.data_ptr()).value)

    torch.manual_seed(0)
    model = model_of([Mamba(16)])
    model.backbone.norm = Spying()
    decoder, own = Decoder(model, model.init_state(1)), model.init_state(1)
    with torch.no_grad():
        for i in range(6):
            assert torch.equal(decoder.next(torch.tensor([i])), model.advance_(torch.tensor([i]), own))
    assert "another result" in str(decoder.uncaptured)


def test_a_large_state_is_not_copied_to_record_a_token(monkeypatch):
    monkeypatch.setattr(tape, "LARGEST", 100)
    model = model_of([Mamba(16)])
    decoder = Decoder(model, model.init_state(1))
    for i in range(5):
        decoder.next(torch.tensor([i]))
    assert "a token on up to 100 is recorded" in str(decoder.uncaptured)


def test_a_recording_of_many_rows_holds_no_int8_weights_in_full():
    model = model_of([Mamba(32)])
    weight_only(model)
    decoder, own = Decoder(model, model.init_state(9)), model.init_state(9)
    with torch.no_grad():
        for ids in torch.randint(60, (6, 9)):
            close(decoder.next(ids), model.advance_(ids, own), torch.float32)
    assert decoder.uncaptured is None
    held = [x for x in tree_leaves(decoder._replay.tape.kept) if isinstance(x, torch.Tensor)]
    shapes = {tuple(x.shape) for x in held if x.is_floating_point()}
    weights = {tuple(x.shape) for name, x in model.named_buffers() if name.endswith("int8")}
    assert weights
    assert not shapes & weights


def test_a_state_of_nothing_is_held_to_be_itself():
    tape._compare([torch.zeros(2, 0)], [torch.zeros(2, 0)])


def test_weights_in_place_of_a_layer_are_recorded_as_they_act():
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.a, self.b = nn.Linear(16, 2, bias=False), nn.Linear(2, 16, bias=False)

        def forward(self, x):
            return self.inner(x) + 0.5 * self.b(self.a(x))

    model = model_of([PointwiseMLP(16), Mamba(16)])
    model.backbone.blocks[0].mixer.mlp = Wrapped(FeedForward(16))
    decoder, own = Decoder(model, model.init_state(1)), model.init_state(1)
    with torch.no_grad():
        for i in range(6):
            close(decoder.next(torch.tensor([i])), model.advance_(torch.tensor([i]), own), torch.float32)
    assert decoder.uncaptured is None


def several(model, ids):
    decoder = Decoder(model, model.init_state(1))
    return [decoder.next(x) for x in ids]


def test_two_decoders_at_once_in_two_threads():
    model = model_of(STACKS["mamba2"]())
    streams = [torch.randint(60, (40, 1)) for _ in range(2)]
    alone = [several(model, ids) for ids in streams]
    found: dict[int, list[torch.Tensor]] = {}
    workers = [
        threading.Thread(target=lambda i=i: found.update({i: several(model, streams[i])})) for i in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    for i in range(2):
        assert all(torch.equal(x, y) for x, y in zip(found[i], alone[i], strict=True))


def in_a_fork(model, ids, queue):
    decoder = Decoder(model, model.init_state(1))
    logits = torch.stack([decoder.next(x) for x in ids])
    queue.put((logits.numpy(), decoder.uncaptured))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_a_forked_process_decodes_by_the_loop():
    model, ids = model_of([Mamba(16)]), torch.randint(60, (8, 1))
    expected = torch.stack(several(model, ids))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=in_a_fork, args=(model, ids, queue))
    worker.start()
    found, why = queue.get(timeout=60)
    worker.join(60)
    close(torch.from_numpy(found), expected, torch.float32)
    assert "in a forked process" in why
