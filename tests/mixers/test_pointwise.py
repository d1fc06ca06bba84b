"""Perceptrons and mixtures of experts as layers: what they compute, and that no state is one too."""

import copy

import pytest
import torch
import torch.nn.functional as F

from hippodrome.analyze.cost import state_bytes
from hippodrome.analyze.response import spectrum
from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.generate.stream import generate
from hippodrome.layers.mlp import FeedForward, GatedMLP
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.mixers.mlp import PointwiseMLP
from hippodrome.mixers.moe import RoutedExperts
from hippodrome.models.language import LanguageModel


def test_squared_relu_without_a_gate():
    layer = PointwiseMLP(3, 5, gated=False).double()
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    expected = (x @ layer.mlp.fc1.weight.T).clamp(min=0).square() @ layer.mlp.fc2.weight.T
    torch.testing.assert_close(layer(x)[0], expected)
    assert isinstance(layer.mlp, FeedForward)
    assert FeedForward(8).fc1.out_features == 32
    assert {"fc1.bias", "fc2.bias"} <= set(FeedForward(4, bias=True).state_dict())


def test_gelu_gates():
    mlp = GatedMLP(3, 5, "gelu").double()
    x = torch.randn(4, 3, dtype=torch.float64)
    y, gate = (x @ mlp.fc1.weight.T).chunk(2, -1)
    phi = 0.5 * (1 + torch.erf(gate / 2**0.5))
    torch.testing.assert_close(mlp(x), (y * gate * phi) @ mlp.fc2.weight.T)


def test_a_gate_may_be_scaled_before_its_function():
    mlp = PointwiseMLP(3, 5, gate_scale=0.25).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    y, gate = (x @ mlp.mlp.fc1.weight.T).chunk(2, -1)
    torch.testing.assert_close(mlp.tokens(x), (y * F.silu(gate / 4)) @ mlp.out_proj.weight.T)
    with pytest.raises(ValueError, match=r"gate_scale is for a gated perceptron; got 0.25"):
        PointwiseMLP(3, gated=False, gate_scale=0.25)


def test_as_a_layer_it_is_the_second_half_of_a_block():
    torch.manual_seed(0)
    mlp = PointwiseMLP(8)
    gru = MinGRU(8)
    halves = Stack([Block(copy.deepcopy(gru)), Block(mlp)])
    torch.manual_seed(0)
    whole = Stack([Block(gru, copy.deepcopy(PointwiseMLP(8).mlp))])
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(halves(x)[0], whole(x)[0])


def test_a_model_streams_and_is_measured_where_layers_carry_nothing():
    blocks = [Block(PointwiseMLP(8)), Block(MinGRU(8)), Block(RoutedExperts(8, 8, experts=4))]
    model = LanguageModel(Stack(blocks), 11).eval()
    tokens = torch.randint(11, (2, 9))
    with torch.no_grad():
        logits, state = model(tokens)
        again = model.init_state(2)
        for t in range(9):
            y, again = model.step(tokens[:, t], again)
        own = model.init_state(2)
        for t in range(9):
            inside = model.advance_(tokens[:, t], own)
    torch.testing.assert_close(y, logits[:, -1])
    torch.testing.assert_close(inside, logits[:, -1])
    assert [len(part) for part in state] == [0, 2, 0]
    assert state_bytes(blocks[0], 5) == 0
    assert spectrum(PointwiseMLP(8)) is None
    assert len(list(generate(model, tokens[:1], max_new_tokens=4, temperature=0.0))) == 4
