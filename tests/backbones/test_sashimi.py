"""SaShiMi: causal through its pools, and one call is chunks is steps wherever pools and resets fall."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hippodrome import config
from hippodrome.backbones.sashimi import Sashimi
from hippodrome.generate import generate
from hippodrome.generate.decoder import owned as copied
from hippodrome.generate.decoder import tensors


def made(pattern: str = "sashimi:s4d", depth: int = 1, **options: object) -> Sashimi:
    torch.manual_seed(0)
    spec = config.stack_spec(pattern, 8, depth, options={"sashimi": {"pool": [2, 3], **options}})
    model = config.build(spec, "backbones").double().eval()
    return model


def steps(model: Sashimi, x: Tensor, resets: Tensor, dt: Tensor | None = None) -> tuple[Tensor, tuple]:
    state, out = model.init_state(x.shape[0], x.shape[1]), []
    for i in range(x.shape[1]):
        state = model.reset_rows(state, resets[:, i])
        y, state = model.step(x[:, i], state, dt_t=None if dt is None else dt[:, i])
        out.append(y)
    return torch.stack(out, 1), state


def by_hand(model: Sashimi, x: Tensor) -> Tensor:
    """The whole net on one row that begins at its first token, with the pools written out in loops."""
    streams = [x]
    for k, p in enumerate(model.pool):
        fine = streams[-1]
        below = model.downs[k](fine)[0] if model.downs else fine
        whole = fine.shape[1] // p
        frames = [torch.cat([below[:, j * p + i] for i in range(p)], -1) for j in range(whole)]
        streams.append(torch.stack([model.pools[k](f) for f in frames], 1))
    y = model.centre(streams.pop())[0]
    for k in reversed(range(len(model.pool))):
        fine, p = streams.pop(), model.pool[k]
        late = torch.zeros_like(fine)
        for i in range(p, fine.shape[1]):
            wide = model.unpools[k](y[:, i // p - 1])
            late[:, i] = wide.view(len(x), p, -1)[:, i % p]
        y = model.ups[k](fine + late)[0]
    return y


@pytest.mark.parametrize(
    ("pattern", "unet"),
    [("sashimi:s4d", False), ("sashimi:mamba", True), ("sashimi:attention:min_gru:s4d", True)],
)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_one_call_is_chunks_is_steps(pattern: str, unet: bool, data: st.DataObject) -> None:
    pool = data.draw(st.sampled_from([[2, 3], [3, 2], [4, 1]]), label="pool")
    model = made(pattern, pool=pool, unet=unet)
    t = data.draw(st.integers(1, 16), label="t")
    places = st.integers(0, t - 1)
    x = torch.randn(3, t, 8, dtype=torch.float64)
    resets = torch.zeros(3, t, dtype=torch.bool)
    for row, marks in enumerate(data.draw(st.lists(st.lists(places, max_size=3), min_size=3, max_size=3))):
        resets[row, marks] = True
    dt = 0.5 + torch.rand(3, t, dtype=torch.float64) if pattern == "sashimi:s4d" else None
    some = resets if resets.any() else None
    with torch.no_grad():
        whole, last = model(x, resets=some, dt=dt)
        expected, stepped = steps(model, x, resets, dt)
        torch.testing.assert_close(whole, expected, rtol=1e-9, atol=1e-12)
        if "attention" not in pattern:  # whose cache has slots for the tokens of a call
            for one, other in zip(tensors(last), tensors(stepped), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        cuts = sorted({0, t, *data.draw(st.lists(places, max_size=3), label="cuts")})
        state, parts = None, []
        for a, b in pairwise(cuts):
            part = None if some is None else resets[:, a:b]
            y, state = model(x[:, a:b], state, resets=part, dt=None if dt is None else dt[:, a:b])
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-9, atol=1e-12)
        more = torch.randn(3, 7, 8, dtype=torch.float64)
        after = [model(more, s)[0] for s in (state, last)]
        torch.testing.assert_close(after[0], after[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("unet", [False, True])
def test_it_is_the_net_of_its_parts(unet: bool) -> None:
    model = made(unet=unet, pool=[4, 4])
    x = torch.randn(2, 37, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[0], by_hand(model, x), rtol=1e-9, atol=1e-12)


def seen_before(model: Sashimi) -> list[int]:
    """For each token that is changed, how far before it the first output that changes lies; <= 0 if none."""
    x = torch.randn(1, 32, 8, dtype=torch.float64)
    early = []
    with torch.no_grad():
        y = model(x)[0]
        for i in range(32):
            moved = x.clone()
            moved[:, i] += 1
            changed = (model(moved)[0] != y).any(-1)[0].nonzero()[:, 0]
            early.append(i - int(changed[0]))
    return early


def test_no_output_sees_a_later_token_and_without_the_shift_some_would(monkeypatch) -> None:
    model = made(pool=[4, 4])
    assert seen_before(model) == [0] * 32
    even = Sashimi._even

    def unshifted(self: Sashimi, k: int, x: Tensor, dt: Tensor | None) -> tuple:
        late, carried, inner = even(self, k, x, dt)
        p, t = self.pool[k], x.shape[1]
        now = torch.cat([late[:, p:], carried[3]], 1)[:, :t]
        return now, carried, inner

    monkeypatch.setattr(Sashimi, "_even", unshifted)
    early = seen_before(model)
    assert max(early) > 0
    assert early[3] == 3


def test_a_coarser_rate_moves_once_a_pool() -> None:
    model = made(pool=[4, 4]).float()
    counts = dict.fromkeys(("fine", "middle", "centre"), 0)
    for name, stack in zip(counts, [*model.ups, model.centre], strict=True):

        def count(*_: object, name: str = name, run=stack.step, **options: object) -> tuple:
            counts[name] += 1
            return run(*_, **options)

        stack.step = count
    state = model.init_state(2)
    for _ in range(64):
        _, state = model.step(torch.randn(2, 8), state)
    assert counts == {"fine": 64, "middle": 16, "centre": 4}


def test_overwriting_is_the_step_also_where_rows_are_out_of_phase() -> None:
    model = made("sashimi:mamba", unet=True)
    shapes = [[x.shape for x in tensors(model.init_state(1, most))] for most in (None, 3)]
    assert shapes[0] == shapes[1]
    with torch.no_grad():
        x = torch.randn(3, 20, 8, dtype=torch.float64)
        resets = torch.zeros(3, 5, dtype=torch.bool)
        resets[0, 2] = resets[2, 4] = True
        _, state = model(x[:, :5], resets=resets)
        owned = copied(state)
        for i in range(5, 20):
            y, state = model.step(x[:, i], state)
            torch.testing.assert_close(model.advance_(x[:, i], owned), y)
    for one, other in zip(tensors(owned), tensors(state), strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_reach_every_parameter() -> None:
    model = made(unet=True)
    model(torch.randn(2, 13, 8, dtype=torch.float64))[0].square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_low_precision_keeps_its_kinds() -> None:
    model = made().bfloat16()
    x = torch.randn(2, 9, 8, dtype=torch.bfloat16)
    with torch.no_grad():
        y, state = model(x)
        y_t, after = model.step(x[:, 0], state)
    assert y.dtype == y_t.dtype == torch.bfloat16
    kinds = [[x.dtype for x in tensors(s)] for s in (model.init_state(2), state, after)]
    assert kinds[0] == kinds[1] == kinds[2]


def test_a_pattern_names_rates_and_their_widths() -> None:
    spec = config.stack_spec(
        "sashimi:s4d:s4d:mamba", 8, 2, mlp=True, options={"sashimi": {"pool": [4, 2], "hidden": 2}}
    )
    kinds = [[b["mixer"]["kind"] for b in s["blocks"]] for s in [*spec["ups"], spec["centre"]]]
    assert kinds == [["s4d"] * 2, ["s4d"] * 2, ["mamba"] * 2]
    assert [b["mlp"]["d_hidden"] for b in spec["centre"]["blocks"]] == [64, 64]
    model = config.build(spec, "backbones")
    assert [model.ups[0].d_model, model.ups[1].d_model, model.centre.d_model] == [8, 16, 32]
    norms = [type(s.norm).__name__ for s in (*model.ups, model.centre)]
    assert norms == ["RMSNorm", "Identity", "Identity"]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="one token at least; got pool="):
        made(pool=[2, 0])
    with pytest.raises(ValueError, match="list of tokens a pool"):
        made(pool=4)
    with pytest.raises(ValueError, match="one for each of its 3 rates; got 2"):
        made("sashimi:s4d:mamba")
    with pytest.raises(ValueError, match="no option 'pools'"):
        made(pools=[4])
    with pytest.raises(ValueError, match="reads later tokens"):
        made("sashimi:bi-s4d")
    example = Sashimi.example()
    with pytest.raises(ValueError, match="1 pools, 2 stacks on the way up"):
        Sashimi(example.centre, list(example.ups), [2])


def test_a_language_model_of_it_streams() -> None:
    torch.manual_seed(0)
    spec = {"kind": "language", "vocab_size": 11, "backbone": config.stack_spec("sashimi:min_gru", 8, 1)}
    model = config.build(spec).double().eval()
    with torch.no_grad():
        model.embedding.weight.mul_(50)  # first values are so small that all tokens are alike
        prompt = torch.tensor([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
        made = torch.stack(list(generate(model, prompt, max_new_tokens=40, temperature=0.0)), 1)
        whole = torch.cat([prompt, made], 1)
        expected = model(whole)[0].argmax(-1)[:, 4:-1]
    assert torch.equal(made, expected)
    assert len(made.unique()) > 1
