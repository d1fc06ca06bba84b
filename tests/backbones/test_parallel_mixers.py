"""Mixers side by side: the sum written out, the contract, states, patterns, refusals."""

import copy
import pickle

import pytest
import torch

from hippodrome import config
from hippodrome.backbones.parallel import Parallel
from hippodrome.backbones.stack import Stack
from hippodrome.estimators import _described
from hippodrome.mixers.attention import Attention
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.mixers.mixture_of_mamba import MixtureOfMamba
from hippodrome.mixers.s4d import S4D
from hippodrome.testing.mixers import assert_refuses, check_mixer, prepared, tokens


def falcon() -> Parallel:
    ssm = Mamba2(8, d_state=4, head_dim=4, chunk=4)
    return Parallel([ssm, Attention(8, heads=2)], [0.5, 2.0], [1.5, 0.25])


def test_contract() -> None:
    check_mixer(Parallel([Mamba2(8, d_state=4, head_dim=4, chunk=4), Attention(8, heads=2)]), length=7)


def test_contract_with_time_and_with_modalities() -> None:
    check_mixer(Parallel([S4D(4, d_state=4), S4D(4, d_state=4)], None, [0.5, 2.0]), length=5)
    check_mixer(Parallel([MinGRU(8), MixtureOfMamba.example()]), length=5)


@torch.no_grad()
def test_it_is_the_sum_with_its_factors() -> None:
    mixer = prepared(falcon())
    x = tokens(mixer, 2, 9)
    ssm, attention = mixer.mixers
    expected = 0.5 * ssm(1.5 * x)[0] + 2.0 * attention(0.25 * x)[0]
    torch.testing.assert_close(mixer(x)[0], expected, atol=1e-12, rtol=1e-12)


def test_a_state_is_one_tuple_of_both_and_is_copied_as_such() -> None:
    mixer = falcon()
    state = mixer.init_state(2, 5)
    assert state._fields == ("window_0", "S_0", "k_1", "v_1", "seen_1")
    for again in (copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        assert type(again) is type(state)
        assert all(torch.equal(a, b) for a, b in zip(again, state, strict=True))
    assert type(mixer.init_state(2)) is not type(state)  # a cache that grows is another state
    assert all(len(tensor) == 2 for tensor in state)


def test_what_cannot_stand_side_by_side_is_refused() -> None:
    assert_refuses(lambda: Parallel([MinGRU(8)]), "one mixer alone")
    assert_refuses(lambda: Parallel([MinGRU(8), MinGRU(4)]), "two widths")
    assert_refuses(lambda: Parallel([MinGRU(8), MinGRU(8)], [1.0]), "a factor too few")
    both = config.build({"kind": "bidirectional", "ahead": _gru(), "back": _gru()}, "mixers")
    assert_refuses(lambda: Parallel([MinGRU(8), both]), "one that reads later tokens")


def _gru() -> dict:
    return {"kind": "min_gru", "d_model": 8}


def test_a_pattern_writes_it_with_and() -> None:
    options = {"mamba2": {"d_state": 4, "head_dim": 4}, "parallel": {"scales": [2.0, 3.0]}}
    pattern = "mamba2-and-attentionx2+mlp"
    spec = config.stack_spec(pattern, 8, 3, options=options, scale={"mlp": 0.5})
    stack = config.build(spec, "backbones")
    assert isinstance(stack, Stack)
    first, second, _ = stack.blocks
    assert isinstance(first.mixer, Parallel)
    assert isinstance(second.mixer, Parallel)
    assert [type(m) for m in first.mixer.mixers] == [Mamba2, Attention]
    assert first.mixer.scales == [2.0, 3.0]
    assert first.mixer.mixers[0].matrix == (4, 4)
    assert first.mlp is None
    assert [b.scale for b in stack.blocks] == [1.0, 1.0, 0.5]
    assert config.option_kinds(pattern) == ["parallel", "mamba2", "attention", "mlp"]
    assert _described(config.validate(spec, "backbones")) == (pattern, 3)
    beside = config.stack_spec("min_gru-and-attention", 8)
    assert beside["blocks"][0]["mlp"] is not None


def test_patterns_that_say_it_wrongly_are_refused() -> None:
    with pytest.raises(ValueError, match=r"side by side.*'atention' is none.*did you mean 'attention'"):
        config.parse_pattern("mamba2-and-atention")
    with pytest.raises(ValueError, match=r"parallel is made of mixers.*mamba2-and-attention, say"):
        config.parse_pattern("parallel")
    with pytest.raises(ValueError, match=r"a scale for 'mpl'.*did you mean 'mlp'"):
        config.stack_spec("mamba2+mlp", 8, scale={"mpl": 0.5})
    with pytest.raises(ValueError, match="options for 'parallel', which is not in the pattern"):
        config.stack_spec("mamba2+attention", 8, options={"parallel": {}})
