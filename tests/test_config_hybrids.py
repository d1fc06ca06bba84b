"""Hybrids: where their layers stand, written as symbols, shares, periods, lists, and what a pattern gets."""

import pytest
import torch

from hippodrome import config
from hippodrome.config.allocation import from_symbols

PUBLISHED = {
    (56, 0.08, 0.5): "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-",
    (56, 0.07, 0.5): "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-",
    (48, 0.08, 0.5): "M-M-M--M-*M-M-M-M--*M-M-M-M-*M--M-M-M-*M-M--M-M-",
    (24, 0.08, 0.5): "M-M-M--*M-M-M-M-*M--M-M-",
    (32, 0.1, 0.5): "M-M--M-*M-M-M-M-*-M-M-M-*M--M-M-",
    (8, 0.125, 0.0): "MMMM*MMM",
}


@pytest.mark.parametrize("shares", PUBLISHED)
def test_layers_stand_where_the_authors_code_puts_them(shares):
    layers, attention, mlp = shares
    symbols = config.allocate(*shares)
    assert symbols == PUBLISHED[shares]
    assert symbols.count("*") == round(layers * attention)
    assert symbols.count("-") == round(layers * mlp)


def test_the_8b_hybrid_has_24_4_and_28_layers():
    symbols = config.allocate(56, 0.08, 0.5)
    assert [symbols.count(s) for s in "M*-"] == [24, 4, 28]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((56, 0.6, 0.5), "add up to 1 at most"),
        ((3, 0.5, 0.5), "2 and 2 of 3"),
        ((8, -0.1, 0.0), "share of attention"),
        ((8, 0.0, 1.5), "share of mlp"),
        ((0, 0.1, 0.1), "one layer or more"),
    ],
)
def test_shares_that_cannot_be(asked, said):
    with pytest.raises(ValueError, match=said):
        config.allocate(*asked)


def test_patterns_in_symbols():
    assert config.parse_pattern("M-M*E") == ("mamba2", "mlp", "mamba2", "attention", "moe")
    assert config.parse_pattern("M-x2+attention") == ("mamba2", "mlp", "mamba2", "mlp", "attention")
    assert config.parse_pattern("M56*.08-.5") == from_symbols(PUBLISHED[56, 0.08, 0.5])
    assert config.parse_pattern("M8*.125") == from_symbols("MMMM*MMM")
    assert config.parse_pattern("M4") == ("mamba2",) * 4
    assert len(config.pattern_layers("M56*.08-.5", 4)) == 56
    with pytest.raises(ValueError, match=r"M for mamba2, \* for attention.*got 'M-Q'"):
        config.parse_pattern("M-Q")
    with pytest.raises(ValueError, match="add up"):
        config.parse_pattern("M8*.9-.9")
    # No kind may look like a pattern in symbols.
    assert all(from_symbols(kind) is None for kind in config.choices("mixers"))


def test_jamba_has_attention_in_four_layers_and_experts_in_every_odd_one():
    names = config.periodic(32)
    mixers, halves = names[::2], names[1::2]
    assert [i for i, kind in enumerate(mixers) if kind == "attention"] == [4, 12, 20, 28]
    assert set(mixers) == {"mamba", "attention"}
    assert [i for i, kind in enumerate(halves) if kind == "moe"] == list(range(1, 32, 2))
    assert set(halves) == {"mlp", "moe"}
    assert config.periodic(2, 2, 0, 1, 0, "gla") == ("attention", "moe", "gla", "moe")
    for wrong in ((32, 8, 8), (32, 8, 4, 2, -1), (0,)):
        with pytest.raises(ValueError, match=r"offset|depth"):
            config.periodic(*wrong)


def test_a_list_of_kinds_is_a_pattern():
    kinds = ["mamba2", "mamba2", "attention"]
    assert config.parse_pattern(kinds) == tuple(kinds)
    assert config.parse_pattern(tuple(kinds), 4) == (*kinds, "mamba2")
    assert config.pattern_kinds(kinds) == ("mamba2", "attention")
    assert config.stack_spec(kinds, 16) == config.stack_spec("mamba2x2+attention", 16)
    with pytest.raises(ValueError, match="did you mean 'mamba2'"):
        config.parse_pattern(["mamba2", "mamba22"])
    model = config.RecipeModel(pattern=kinds, depth=3, d_model=16)
    assert [b["mixer"]["kind"] for b in model.stack()["blocks"]] == kinds


def test_state_spaces_below_and_attention_above():
    assert config.parse_pattern("mamba2x6+attentionx2") == ("mamba2",) * 6 + ("attention",) * 2


def test_a_pattern_that_names_perceptrons_gets_none_besides():
    blocks = config.stack_spec("attention+mlp+min_gru+moe", 16)["blocks"]
    assert [block["mlp"] for block in blocks] == [None] * 4
    # Cut off before the perceptron it still says where they stand.
    assert config.stack_spec("attention+mlp", 16, 1)["blocks"][0]["mlp"] is None
    assert config.stack_spec("attention", 16)["blocks"][0]["mlp"] is not None
    assert config.stack_spec("attention+mlp", 16, mlp=["attention"])["blocks"][0]["mlp"] is not None
    with pytest.raises(ValueError, match="did you mean 'mlp'"):
        config.parse_pattern("mamba+mpl")


def test_a_hybrid_learns_and_its_writers_are_scaled_by_the_depth():
    spec = config.stack_spec("min_gru+mlp+moe", 16, options={"mlp": {"gated": False}, "moe": {"experts": 4}})
    torch.manual_seed(0)
    stack = config.build(spec, "backbones")
    torch.manual_seed(0)
    alone = config.build({**spec, "blocks": spec["blocks"][:1]}, "backbones")
    bound = (8 * -(-16 // 3)) ** -0.5 / 3**0.5
    assert 0.9 * bound < stack.blocks[2].mixer.moe.fc2.weight.abs().max() <= bound
    assert stack.blocks[1].mixer.out_proj.weight.abs().max() <= 64**-0.5 / 3**0.5
    torch.testing.assert_close(
        stack.blocks[0].mixer.out_proj.weight * 3**0.5, alone.blocks[0].mixer.out_proj.weight
    )
    x = torch.randn(2, 5, 16)
    y, state = stack(x)
    y.sum().backward()
    assert all(p.grad is not None for p in stack.parameters())
    assert [len(inner) for inner in state[1:]] == [0, 0]


def test_active_parameters_leave_out_the_experts_not_chosen():
    spec = config.stack_spec("mlp+moe", 16, options={"moe": {"d_hidden": 8, "experts": 5, "active": 2}})
    model = {"kind": "language", "vocab_size": 10, "backbone": spec}
    idle = config.count_parameters(model) - config.count_parameters(model, active=True)
    assert idle == 3 * (3 * 8 * 16)


def test_a_recipe_says_whether_its_head_is_its_embedding():
    model = {"pattern": ["mamba", "mlp"], "depth": 2, "d_model": 16}
    assert config.RecipeModel(**model).tie
    assert not config.RecipeModel(**model, tie=False).tie
