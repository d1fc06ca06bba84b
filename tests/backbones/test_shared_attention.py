"""Shared attention: written out, shared as said, and the same in one call, chunks, tokens and pieces."""

from itertools import pairwise

import pytest
import torch

from hippodrome import config
from hippodrome.backbones.block import Block
from hippodrome.backbones.shared_attention import SharedAttention
from hippodrome.backbones.stack import Stack


def made(pattern: str = "shared_attention:mamba", depth: int = 4, **options: object) -> SharedAttention:
    torch.manual_seed(0)
    given = {"uses": [1, 2, 3], "shared": 2, "heads": 2, "d_hidden": 12, "rank": 3, **options}
    mamba = {"mamba": {"d_state": 4}} if "mamba" in pattern else {}
    spec = config.stack_spec(pattern, 8, depth, options={"shared_attention": given, **mamba})
    model = config.build(spec, "backbones").double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def test_a_layer_hears_what_the_papers_equation_says() -> None:
    model = made(depth=2, uses=[1], shared=1)
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    block, own = model.shared[0], model.adapted[0]

    def norm(h: torch.Tensor, by: torch.nn.Module) -> torch.Tensor:
        return h / (h.square().mean(-1, keepdim=True) + by.eps).sqrt() * by.weight

    first, second = model.stack.blocks
    h = x + first.mixer(norm(x, first.norm))[0]
    c = norm(torch.cat([h, x], -1), block.norm)
    q, k, v = (c @ block.attention.in_proj.weight.T).unflatten(-1, (6, 8)).split(2, -2)
    scores = torch.einsum("bthe,bshe->bhts", q, k) / 4**0.5
    scores = scores.masked_fill(torch.ones(6, 6, dtype=torch.bool).triu(1), -torch.inf)
    y = torch.einsum("bhts,bshe->bthe", scores.softmax(-1), v).flatten(2) @ block.out.weight.T
    y = norm(y, block.mlp_norm)
    gate, up = (y @ (block.fc1.weight + own.up.weight @ own.down.weight).T).chunk(2, -1)
    y = (torch.nn.functional.gelu(gate) * up) @ block.fc2.weight.T @ own.linear.weight.T
    expected = norm(h + second.mixer(norm(h + y, second.norm))[0], model.stack.norm)
    torch.testing.assert_close(model(x)[0], expected)


def test_changes_of_heads_and_biases_are_those_of_changed_maps() -> None:
    model = made(attention_rank=2, bias=True, kv_heads=1)
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    with torch.no_grad():
        y = model(x)[0]
        own, attention = model.adapted[1], model.shared[1].attention
        low = own.heads_down.weight.chunk(3)
        attention.in_proj.weight += torch.cat(
            [up.weight @ down for up, down in zip(own.heads_up, low, strict=True)]
        )
        own.heads_down.weight.zero_()
        torch.testing.assert_close(model(x)[0], y)
        assert [up.out_features for up in own.heads_up] == [16, 8, 8]
        model.shared[0].fc1.bias[0] += 1.0
        assert not torch.allclose(model(x)[0], y)
    fresh = SharedAttention(Stack.example(), [1], heads=2, d_hidden=8, rank=2, attention_rank=2)
    assert not any(up.weight.any() for up in fresh.adapted[0].heads_up)


def test_norms_add_what_the_stack_does() -> None:
    spec = config.stack_spec("shared_attention:mamba", 8, 3, norm_eps=0.25)
    model = config.build(spec, "backbones")
    assert {model.shared[0].norm.eps, model.shared[0].mlp_norm.eps, model.stack.norm.eps} == {0.25}


@pytest.mark.parametrize(
    "options", [{}, {"rope": True, "rope_base": 50.0}, {"attention_rank": 2, "bias": True}]
)
@torch.no_grad()
def test_one_call_is_chunks_is_tokens_is_pieces(options: dict) -> None:
    model = made(**options)
    x = torch.randn(3, 6, 8, dtype=torch.float64)
    resets = torch.zeros(3, 6, dtype=torch.bool)
    resets[0, 3] = resets[1, [0, 2, 5]] = True
    whole, last = model(x, resets=resets)
    state, parts = None, []
    for a, b in pairwise([0, 1, 4, 6]):
        y, state = model(x[:, a:b], state, resets=resets[:, a:b])
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    state, own, steps = model.init_state(3, 6), model.init_state(3, 7), []
    for t in range(6):
        state = model.reset_rows(state, resets[:, t])
        y, state = model.step(x[:, t], state)
        steps.append(y)
        if not resets[:, t].any() and not resets[:, :t].any():
            torch.testing.assert_close(model.advance_(x[:, t], own), y)
    torch.testing.assert_close(torch.stack(steps, 1), whole)
    more = torch.randn(3, 2, 8, dtype=torch.float64)
    torch.testing.assert_close(model(more, last)[0], model(more, model(x, resets=resets)[1])[0])
    torch.testing.assert_close(model(x[1:2, 2:5])[0], whole[1:2, 2:5])


@torch.no_grad()
def test_uses_take_turns_among_the_blocks_and_keep_their_own_past() -> None:
    model = made()
    x = torch.randn(1, 5, 8, dtype=torch.float64)
    before, state = model(x)
    assert len(state.shared) == 3
    assert not torch.allclose(state.shared[0].k, state.shared[2].k)
    model.shared[1].fc2.weight.zero_()
    only = made(uses=[1, 3], shared=1)
    only.load_state_dict(
        {
            k.replace("adapted.2", "adapted.1"): v
            for k, v in model.state_dict().items()
            if "adapted.1" not in k
        },
        strict=False,
    )
    torch.testing.assert_close(only(x)[0], model(x)[0])
    assert not torch.allclose(before, model(x)[0])


def test_gradients_reach_everything_and_begin_without_changes() -> None:
    fresh = SharedAttention(Stack.example(), [0, 1], heads=2, d_hidden=8, rank=2)
    assert all((use.up.weight == 0).all() for use in fresh.adapted)
    model = made(attention_rank=2, bias=True)
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    model(x)[0].square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    state = model.init_state(2, 3)
    held = [part.clone() for part in state.shared[0]]
    y, _ = model.step(x[:, 0], state)
    torch.testing.assert_close(model.advance_(x[:, 0], state).detach(), y.detach())
    assert not torch.equal(held[2], state.shared[0].seen)


def test_places_by_default_and_in_a_pattern() -> None:
    spec = config.stack_spec("shared_attention:mamba2", 32, 20)
    assert spec["uses"] == [6, 12, 18]
    assert config.stack_spec("shared_attention:mamba2", 32, 3)["uses"] == [2]
    every = config.stack_spec("shared_attention:mamba2", 32, 9, options={"shared_attention": {"every": 4}})
    assert every["uses"] == [4, 8]


def test_bad_input() -> None:
    stack = Stack([Block.example() for _ in range(4)])
    for given, said in (
        ({"uses": []}, "one at least"),
        ({"uses": [2, 1]}, "ascending numbers of blocks from 0 to 3"),
        ({"uses": [4]}, "ascending"),
        ({"shared": 4}, "4 of them for 3 uses"),
        ({"shared": 0}, "used once at least"),
        ({"heads": 3}, "heads must divide d_model; got 3 for 16"),
    ):
        with pytest.raises(ValueError, match=said):
            SharedAttention(stack, **{"uses": [1, 2, 3], **given})
    with pytest.raises(ValueError, match="reads later tokens"):
        made("shared_attention:bi-s4d")
    with pytest.raises(ValueError, match="one stack; got 2"):
        config.stack_spec("shared_attention:mamba:mamba", 8)
    with pytest.raises(ValueError, match="did you mean 'shared_attention'"):
        config.stack_spec("shared_atention:mamba", 8)
