"""Rows of states taken, put, stacked and cut: each goes on as it would have alone."""

import pytest
import torch

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.generate import rows
from hippodrome.generate.decoder import tensors
from hippodrome.mixers.attention import Attention
from hippodrome.mixers.mamba import Mamba
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.models.language import LanguageModel


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    mixers = [Mamba(16), Attention(16), Mamba2(16), Attention(16, window=4)]
    return LanguageModel(Stack([Block(mixer) for mixer in mixers]), 30).double().eval()


@torch.no_grad()
def read(model, ids, room):
    return model(torch.tensor([ids]), model.init_state(1, room))[1]


def same(one, two):
    return all(torch.equal(x, y) for x, y in zip(tensors(one), tensors(two), strict=True))


def test_a_row_taken_twice_is_a_fork(model):
    state = rows.stack([read(model, [1, 2, 3], 9), read(model, [4, 5, 6, 7, 8], 12)])
    assert rows.size(state) == 2
    fork = rows.take(state, [1, 1, 0])
    with torch.no_grad():
        logits, after = model.step(torch.tensor([9, 10, 9]), fork)
        for row, (begin, word) in enumerate([([4, 5, 6, 7, 8], 9), ([4, 5, 6, 7, 8], 10), ([1, 2, 3], 9)]):
            alone, _ = model.step(torch.tensor([word]), read(model, begin, 12))
            torch.testing.assert_close(logits[row : row + 1], alone, rtol=1e-9, atol=1e-12)
    assert not same(rows.take(after, [0]), rows.take(after, [1]))
    model.advance_(torch.tensor([3, 3, 3]), fork)
    assert same(rows.take(state, [1]), read(model, [4, 5, 6, 7, 8], 12)), "a fork has memory of its own"


def test_a_row_put_into_more_room_goes_on_as_before(model):
    batch = rows.stack([read(model, [1, 2], 20), read(model, [3, 4], 20)])
    rows.put_(batch, [0], read(model, [7, 8, 9, 10], 5))
    with torch.no_grad():
        found, _ = model.step(torch.tensor([11, 12]), batch)
        first, _ = model.step(torch.tensor([11]), read(model, [7, 8, 9, 10], 5))
        second, _ = model.step(torch.tensor([12]), read(model, [3, 4], 20))
    torch.testing.assert_close(found, torch.cat([first, second]), rtol=1e-9, atol=1e-12)


def test_a_narrow_state_is_the_same_memory_and_a_wide_one_is_not(model):
    state = rows.stack([read(model, [1, 2], 8), read(model, [3, 4], 8), read(model, [5, 6], 8)])
    before = rows.take(state, [2])
    with torch.no_grad():
        model.advance_(torch.tensor([1, 1]), rows.narrow(state, 2))
    assert rows.take(state, [0, 1, 2])[1].seen.tolist() == [3, 3, 2]
    assert same(before, rows.take(state, [2]))
    wide = rows.widen(state, 5, read(model, [1], 11))
    assert rows.size(wide) == 5
    assert wide[1].k.shape[1] == 11
    assert wide[3].k.shape[1] == 4, "a window keeps its slots"
    assert same(rows.cut(rows.take(wide, [2]), model.init_state(1, 8)), before)
    assert rows.bytes_of(rows.narrow(state, 1)) * 3 == rows.bytes_of(state)
    assert rows.has_room(wide, state)
    assert not rows.has_room(state, wide)


def test_what_does_not_fit_is_refused(model):
    state = read(model, [1, 2], 6)
    with pytest.raises(ValueError, match="7 slots and there is room for 6"):
        rows.put_(state, [0], read(model, [1, 2], 7))
    with pytest.raises(ValueError, match="numbered from 0 to 0"):
        rows.take(state, [1])
    with pytest.raises(ValueError, match="numbered from 0 to 0"):
        rows.put_(state, [-1], state)
    with pytest.raises(ValueError, match="1 rows and 2 numbers"):
        rows.put_(rows.take(state, [0, 0]), [0, 1], state)
    with pytest.raises(ValueError, match="another model"):
        rows.put_(state, [0], state[:2])
    with pytest.raises(ValueError, match="another model"):
        rows.put_(state, [0], LanguageModel(Stack([Block(Mamba(8))] * 1), 9).init_state(1))
    with pytest.raises(ValueError, match="got none"):
        rows.stack([])
