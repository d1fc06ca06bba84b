"""HiSS: chunks are what the paper says, and chunked calls, resets and steps agree with one call."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome import config
from hippodrome.backbones.hiss import HiSS
from hippodrome.backbones.stack import Stack


def made(pattern: str = "hiss:s4d:mamba", chunk: int = 3, **options: int) -> HiSS:
    torch.manual_seed(0)
    spec = config.stack_spec(pattern, 8, 1, options={"hiss": {"chunk": chunk, **options}})
    return config.build(spec, "backbones").double().eval()


def steps(model: HiSS, x: torch.Tensor, resets: torch.Tensor, dt: torch.Tensor | None) -> torch.Tensor:
    state, out = model.init_state(x.shape[0], x.shape[1]), []
    for i in range(x.shape[1]):
        state = model.reset_rows(state, resets[:, i])
        y, state = model.step(x[:, i], state, dt_t=None if dt is None else dt[:, i])
        out.append(y)
    return torch.stack(out, 1)


PATTERNS = ["hiss:s4d:mamba", "hiss:mamba:attention", "hiss:attention:s4d"]


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_one_call_is_chunks_is_steps(pattern: str, data: st.DataObject) -> None:
    model = made(pattern, chunk=data.draw(st.sampled_from([1, 2, 3, 5]), label="chunk"), width=16)
    t = data.draw(st.integers(1, 17), label="t")
    places = st.integers(0, t - 1)
    x = torch.randn(3, t, 8, dtype=torch.float64)
    resets = torch.zeros(3, t, dtype=torch.bool)
    for row, marks in enumerate(data.draw(st.lists(st.lists(places, max_size=3), min_size=3, max_size=3))):
        resets[row, marks] = True
    with_dt = "attention" not in pattern and data.draw(st.booleans(), label="dt")
    dt = 0.5 + torch.rand(3, t, dtype=torch.float64) if with_dt else None
    with torch.no_grad():
        whole, last = model(x, resets=resets, dt=dt)
        torch.testing.assert_close(whole, steps(model, x, resets, dt), rtol=1e-9, atol=1e-12)
        roomy, _ = model(x, model.init_state(3, t), resets=resets, dt=dt)
        torch.testing.assert_close(roomy, whole, rtol=1e-9, atol=1e-12)
        cuts = sorted({0, t, *data.draw(st.lists(places, max_size=3), label="cuts")})
        state, parts = None, []
        for a, b in pairwise(cuts):
            y, state = model(x[:, a:b], state, resets=resets[:, a:b], dt=None if dt is None else dt[:, a:b])
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-9, atol=1e-12)
        more = torch.randn(3, 4, 8, dtype=torch.float64)
        after = [model(more, s, dt=None if dt is None else dt[:, :1].expand(-1, 4))[0] for s in (state, last)]
        torch.testing.assert_close(after[0], after[1], rtol=1e-9, atol=1e-12)


def test_an_upper_output_comes_at_the_end_of_each_chunk_and_is_held() -> None:
    model = made(chunk=4)
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    y, _ = model(x)
    assert (y[:, :3] == 0).all()
    torch.testing.assert_close(y[:, 3:7], y[:, 3:4].expand(-1, 4, -1))
    low = torch.cat([model.low(x[:, i : i + 4])[0][:, -1:] for i in (0, 4, 8)], 1)
    torch.testing.assert_close(y[:, 3::4], model.high(low)[0])


def test_a_chunk_changes_outputs_from_its_own_end_on_and_its_own_feature_alone() -> None:
    model = made(chunk=4)
    x = torch.randn(1, 12, 8, dtype=torch.float64)
    moved = x.clone()
    moved[:, 5] += 1
    before, after = model(x)[0], model(moved)[0]
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7], after[:, 7])
    starts = (torch.arange(12) % 4 == 0)[None]
    one, two = (model.low(z, resets=starts)[0][:, 3::4] for z in (x, moved))
    assert torch.equal(one[:, [0, 2]], two[:, [0, 2]])
    shuffled = x.unflatten(1, (3, 4))[:, [2, 0, 1]].flatten(1, 2)
    torch.testing.assert_close(model.low(shuffled, resets=starts)[0][:, 3::4], one[:, [2, 0, 1]])


def test_gradients_reach_both_levels_and_overwriting_is_the_step() -> None:
    model = made(width=16)
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    model(x)[0].square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    with torch.no_grad():
        state, owned = model.init_state(2), model.init_state(2)
        for i in range(7):
            y, state = model.step(x[:, i], state)
            torch.testing.assert_close(model.advance_(x[:, i], owned), y)
    assert torch.equal(owned.tokens, state.tokens)


def test_outputs_outlive_the_state_that_is_overwritten() -> None:
    model = made("hiss:mamba:attention", chunk=2)
    x = torch.randn(2, 11, 8, dtype=torch.float64)
    with torch.no_grad():
        whole, _ = model(x)
        begun, owned = model(x[:, :5], model.init_state(2, 11))
        parts = [begun, *(model.advance_(x[:, i], owned)[:, None] for i in range(5, 11))]
        torch.testing.assert_close(torch.cat(parts, 1), whole)
        with pytest.raises(ValueError, match=r"init_state\(batch, max_length\), or use step"):
            model.advance_(x[:, 0], model(x)[1])


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="one token at least; got chunk=0"):
        HiSS(Stack.example(), Stack.example(), chunk=0)
    with pytest.raises(ValueError, match="each of its two levels; got 3"):
        config.stack_spec("hiss:s4d:s4d:s4d", 8)
    with pytest.raises(ValueError, match="did you mean 'hiss'"):
        config.stack_spec("his:s4d", 8)
    with pytest.raises(ValueError, match="reads later tokens"):
        made("hiss:bi-s4d:s4d")
    with pytest.raises(ValueError, match="options for 'his'"):
        config.stack_spec("hiss:s4d", 8, options={"his": {}})
