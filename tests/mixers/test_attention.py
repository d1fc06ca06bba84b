"""Attention against a masked softmax written out, the law of rotary positions, rings and caches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hippodrome.mixers import _attention as engine
from hippodrome.mixers.attention import Attention, GrowingState, State
from hippodrome.testing.mixers import (
    check_advance,
    check_forward,
    check_mixer,
    check_resets,
    prepared,
    tokens,
)


def oracle(mixer: Attention, x: Tensor, resets: Tensor | None = None) -> Tensor:
    """Attention of one row (t, d) with nothing but a mask and a softmax for every head and query."""
    t, size = x.shape[0], mixer.size
    marks = [False] * t if resets is None else resets.tolist()
    start, starts = 0, []
    for i in range(t):
        start = i if marks[i] else start
        starts.append(start)
    widths = [mixer.heads * size, mixer.kv_heads * size, mixer.kv_heads * size]
    q, k, v = (m.view(t, -1, size) for m in (x @ mixer.in_proj.weight.T).split(widths, -1))
    if mixer.rope:
        turn = torch.zeros(t, size, size, dtype=x.dtype)
        for i in range(t):
            for j in range(size // 2):
                angle = torch.tensor((i - starts[i]) * mixer.rope_base ** (-2 * j / size), dtype=x.dtype)
                turn[i, j, j] = turn[i, j + size // 2, j + size // 2] = angle.cos()
                turn[i, j, j + size // 2], turn[i, j + size // 2, j] = -angle.sin(), angle.sin()
        q, k = torch.einsum("tij,thj->thi", turn, q), torch.einsum("tij,thj->thi", turn, k)
    y = torch.zeros(t, mixer.heads, size, dtype=x.dtype)
    for i in range(t):
        first = starts[i] if mixer.window is None else max(starts[i], i - mixer.window + 1)
        for h in range(mixer.heads):
            shared = h * mixer.kv_heads // mixer.heads
            scores = k[first : i + 1, shared] @ q[i, h] / size**0.5
            y[i, h] = torch.softmax(scores, 0) @ v[first : i + 1, shared]
    return y.flatten(1) @ mixer.out_proj.weight.T


VARIANTS = {
    "one head": {"heads": 1},
    "shared keys": {"heads": 4, "kv_heads": 1},
    "no positions": {"heads": 2, "rope": False},
    "window": {"heads": 2, "window": 3},
    "window of one": {"heads": 2, "window": 1, "kv_heads": 1},
    "wide window": {"heads": 2, "window": 50},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_against_masked_softmax(options: dict) -> None:
    mixer = prepared(Attention(8, **options))
    x = tokens(mixer, 2, 12)
    resets = torch.zeros(2, 12, dtype=torch.bool)
    resets[0, [0, 5, 6]] = resets[1, 9] = True
    for marks in (None, resets):
        y, _ = mixer(x, resets=marks)
        for row in range(2):
            expected = oracle(mixer, x[row], None if marks is None else marks[row])
            torch.testing.assert_close(y[row], expected, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_variants_keep_the_contract(options: dict) -> None:
    check_mixer(Attention(8, **options))


@settings(max_examples=15, deadline=None)
@given(window=st.integers(1, 9), length=st.integers(1, 20), data=st.data())
def test_windows_of_any_size_chunk_and_reset(window: int, length: int, data: st.DataObject) -> None:
    mixer = Attention(8, heads=2, window=window)
    splits = data.draw(st.lists(st.integers(0, length), max_size=4))
    rows = data.draw(st.lists(st.lists(st.integers(0, length - 1), max_size=3), min_size=2, max_size=2))
    resets = torch.zeros(2, length, dtype=torch.bool)
    for b, marks in enumerate(rows):
        resets[b, marks] = True
    check_forward(mixer, length, splits=splits, resets=resets, batch=2)
    check_resets(mixer, length, rows)


def test_a_window_that_covers_all_is_full_attention() -> None:
    full = prepared(Attention(8, heads=2))
    wide = Attention(8, heads=2, window=10).double()
    wide.load_state_dict(full.state_dict())
    x = tokens(full, 2, 10)
    torch.testing.assert_close(wide(x)[0], full(x)[0], atol=1e-12, rtol=1e-10)
    narrow = Attention(8, heads=2, window=9).double()
    narrow.load_state_dict(full.state_dict())
    y = narrow(x)[0]
    torch.testing.assert_close(y[:, :9], full(x)[0][:, :9], atol=1e-12, rtol=1e-10)
    assert float((y - full(x)[0]).detach()[:, 9].abs().max()) > 1e-6


def test_rotary_scores_depend_on_distance_alone() -> None:
    q, k = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64)
    near = engine.rotate(q, torch.tensor([[7]])) * engine.rotate(k, torch.tensor([[3]]))
    far = engine.rotate(q, torch.tensor([[1_000_007]])) * engine.rotate(k, torch.tensor([[1_000_003]]))
    torch.testing.assert_close(near.sum(), far.sum(), atol=0, rtol=1e-8)
    still = engine.rotate(q, torch.tensor([[0]]))
    torch.testing.assert_close(still, q)
    torch.testing.assert_close(engine.rotate(q, torch.tensor([[12345]])).norm(), q.norm())


def test_rotary_angles_stay_exact_at_a_million_tokens_in_float32() -> None:
    x = torch.randn(1, 1, 1, 16)
    at = torch.tensor([[999_983]])
    exact = engine.rotate(x.double(), at)
    torch.testing.assert_close(engine.rotate(x, at).double(), exact, atol=1e-6, rtol=1e-5)


def test_states_say_how_they_hold_tokens() -> None:
    full = Attention(8, heads=2)
    assert isinstance(full.init_state(3), GrowingState)
    assert isinstance(full.init_state(3, 10), State)
    assert full.init_state(3, 10).k.shape == (3, 10, 2, 4)
    assert Attention(8, heads=2, window=4).init_state(3).k.shape == (3, 4, 2, 4)
    _, state = full(tokens(full, 3, 5, torch.float32), full.init_state(3, 10))
    assert isinstance(state, State)
    assert state.k.shape == (3, 10, 2, 4)
    assert state.seen.tolist() == [5, 5, 5]


def test_a_ring_stays_small_and_right_over_many_turns() -> None:
    mixer = Attention(8, heads=2, window=4)
    check_advance(mixer, 23)
    state = mixer.init_state(1)
    for _ in range(5):
        _, state = mixer(tokens(mixer, 1, 7, torch.float32), state)
    assert state.k.shape[1] == 4


def test_bad_counts_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="heads must divide d_model; got 3 for 8"):
        Attention(8, heads=3)
    with pytest.raises(ValueError, match="kv_heads must divide heads; got 3 for 4"):
        Attention(8, heads=4, kv_heads=3)
    with pytest.raises(ValueError, match="must be even; got 6 channels in 2 heads, 3 each"):
        Attention(6, heads=2)
    assert Attention(6, heads=2, rope=False).size == 3
    with pytest.raises(ValueError, match="A window holds at least the token itself; got 0"):
        Attention(8, window=0)
    with pytest.raises(ValueError, match="must be even; got 7"):
        Attention(7)


def test_a_full_cache_is_refused_with_a_sentence() -> None:
    mixer = Attention(8, heads=2)
    x = tokens(mixer, 2, 5, torch.float32)
    with pytest.raises(ValueError, match="has 4 slots, 0 of them filled, and 5 tokens more do not fit"):
        mixer(x, mixer.init_state(2, 4))
    _, state = mixer(x, mixer.init_state(2, 5))
    with pytest.raises(ValueError, match="has 5 slots, 5 of them filled, and 1 tokens"):
        mixer.step(x[:, 0], state)
    with pytest.raises(ValueError, match="cannot be written in place"):
        mixer.advance_(x[:, 0], mixer.init_state(2))


def test_default_heads_are_even_and_at_most_64_wide() -> None:
    for width, size in ((768, 64), (72, 36), (8, 8), (136, 34)):
        assert Attention(width).size == size
