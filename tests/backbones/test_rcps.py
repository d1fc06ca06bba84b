"""RCPS: turning the input turns the output, layer by layer as published, and logits turn with it."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome import config
from hippodrome.backbones.rcps import RCPS
from hippodrome.models.masked_language import MaskedLanguageModel
from hippodrome.testing.mixers import assert_refuses

PATTERNS = pytest.mark.parametrize(
    "pattern", [f"rcps:{of}" for of in ("bimamba", "hydra+mlp", "mamba", "bi-min_gru")]
)
# Special tokens and an unknown base stand opposite themselves; A to T and C to G.
COMPLEMENT = [0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11]


def made(pattern: str, **given) -> RCPS:
    torch.manual_seed(0)
    backbone = config.build(config.stack_spec(pattern, 16, 2, **given), "backbones").double()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone


@PATTERNS
def test_turning_the_input_turns_the_output(pattern):
    backbone, x = made(pattern), torch.randn(2, 9, 16, dtype=torch.float64)
    y, state = backbone(x)
    assert state == ()
    torch.testing.assert_close(backbone(x.flip(1, 2))[0], y.flip(1, 2), rtol=1e-9, atol=1e-12)
    assert (y.flip(1) - y).abs().max() > 1e-3


def test_it_is_what_is_published_layer_by_layer():
    # Each mixer and each norm over the first half and over the turned second, the residuals in between.
    backbone, x = made("rcps:bimamba"), torch.randn(2, 9, 16, dtype=torch.float64)

    def turned(layer, x):
        one, other = x.chunk(2, -1)
        return torch.cat([layer(one), layer(other.flip(1, 2)).flip(1, 2)], -1)

    stream = x
    for block in backbone.stack.blocks:
        stream = stream + turned(lambda half, block=block: block.mixer(half)[0], turned(block.norm, stream))
    expected = turned(backbone.stack.norm, stream)
    torch.testing.assert_close(backbone(x)[0], expected, rtol=1e-9, atol=1e-12)


@PATTERNS
@settings(max_examples=2, deadline=None)
@given(data=st.data())
def test_logits_of_the_other_strand_are_those_of_this_one_turned(pattern, data):
    torch.manual_seed(0)
    tie = data.draw(st.booleans())
    model = MaskedLanguageModel(made(pattern), 12, 3, tie=tie, complement=COMPLEMENT).double()
    t = data.draw(st.integers(1, 14))
    cuts = sorted({0, *data.draw(st.lists(st.integers(0, t - 1), max_size=3)), t})
    resets = torch.zeros(1, t, dtype=torch.bool)
    resets[0, cuts[:-1]] = True
    tokens, table = torch.randint(12, (1, t)), torch.tensor(COMPLEMENT)
    # Each piece is turned in its place: the last one may be padding, and turns with the others.
    place = torch.cat([torch.arange(i, j).flip(0) for i, j in pairwise(cuts)])
    logits = model(tokens, resets=resets)[0]
    other = model(table[tokens[:, place]], resets=resets)[0]
    torch.testing.assert_close(other, logits[:, place][..., table], rtol=1e-9, atol=1e-12)
    for i, j in pairwise(cuts):
        torch.testing.assert_close(model(tokens[:, i:j])[0], logits[:, i:j], rtol=1e-9, atol=1e-12)
    if len(cuts) == 2:
        torch.testing.assert_close(model(tokens)[0], logits)


@pytest.mark.parametrize("mask_token", [3, None])
def test_a_model_of_one_strand_reads_both_and_takes_the_mean(mask_token):
    one = MaskedLanguageModel(made("rcps:bimamba").stack, 12, mask_token, complement=COMPLEMENT).double()
    both = one.both_strands()
    assert {id(p) for p in both.parameters()} == {id(p) for p in one.parameters()}
    tokens, table = torch.randint(12, (2, 9)), torch.tensor(COMPLEMENT)
    back = one(table[tokens].flip(1))[0].flip(1)[..., table]
    torch.testing.assert_close(both(tokens)[0], (one(tokens)[0] + back) / 2, rtol=1e-9, atol=1e-12)
    assert both.both_strands() is both
    with pytest.raises(ValueError, match="got complement=None"):
        MaskedLanguageModel(made("rcps:bimamba").stack, 12).both_strands()


def test_a_head_without_the_exchange_would_not_turn():
    model = MaskedLanguageModel(made("rcps:bimamba"), 12, 3, complement=COMPLEMENT).double()
    tokens, table = torch.randint(12, (1, 9)), torch.tensor(COMPLEMENT)
    features = [model.features(x)[0] for x in (tokens, table[tokens].flip(1))]
    plain = [x[..., :8] @ model.embedding.weight.T for x in features]
    assert (plain[1] - plain[0].flip(1)[..., table]).abs().max() > 1e-6


def test_time_turns_too():
    backbone, x = made("rcps:bimamba"), torch.randn(1, 7, 16, dtype=torch.float64)
    dt = 0.5 + torch.rand(1, 7, dtype=torch.float64)
    # Seen from the other end a step between two tokens is the other one's. What has no token before it takes
    # a step of its own, which is not the same from both ends unless those at the ends are equal.
    dt[:, 0] = dt[:, 1] = dt[:, -1]
    turned = torch.cat([dt[:, :1], dt[:, 1:].flip(1)], 1)
    y = backbone(x, dt=dt)[0]
    assert (y - backbone(x)[0]).abs().max() > 1e-6
    torch.testing.assert_close(backbone(x.flip(1, 2), dt=turned)[0], y.flip(1, 2), rtol=1e-9, atol=1e-12)


def test_it_neither_streams_nor_runs_on():
    backbone, x = RCPS.example(), torch.randn(1, 4, 8)
    assert not backbone.causal
    assert_refuses(lambda: backbone.init_state(1), "a state of both strands")
    assert_refuses(lambda: backbone.step(x[:, 0], ()), "a step of both strands")
    assert_refuses(lambda: backbone(x, ()), "running on")


def test_the_spec_halves_the_width():
    spec = config.stack_spec("rcps:bimamba", 16, 3)
    assert spec["kind"] == "rcps"
    assert [block["mixer"]["d_model"] for block in spec["stack"]["blocks"]] == [8, 8, 8]
    with pytest.raises(ValueError, match="takes one pattern"):
        config.stack_spec("rcps:mamba:mamba", 16)
    with pytest.raises(ValueError, match="its width is even; got 15"):
        config.stack_spec("rcps:mamba", 15)
    with pytest.raises(ValueError, match="complement"):
        MaskedLanguageModel(RCPS.example(), 12)
