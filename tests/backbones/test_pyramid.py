"""Pyramids and the blocks in them: shapes, what a grid becomes, patterns, blocks against plain sums."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hippodrome import config
from hippodrome.backbones.block import Block
from hippodrome.backbones.evss import EVSS
from hippodrome.backbones.inverted_residual import InvertedResidual
from hippodrome.backbones.pyramid import Pyramid, grids
from hippodrome.layers.channel_gate import ChannelGate
from hippodrome.layers.drop_path import DropPath
from hippodrome.testing.mixers import assert_equal, check_noncausal, prepared


@pytest.mark.parametrize("mixer", [EVSS, InvertedResidual])
def test_blocks_keep_what_is_left_of_the_contract(mixer):
    check_noncausal(mixer.example(), 12, packed=False)


def test_evss_is_the_identity_where_its_gate_is_shut():
    block = Block(EVSS.example(), norm="layer").double()
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    assert not torch.allclose(block(x)[0], x)
    nn.init.zeros_(block.mixer.se.select.weight)
    nn.init.constant_(block.mixer.se.select.bias, -1e4)  # sigmoid of which is 0
    assert torch.equal(block(x)[0], x)


def test_evss_is_two_branches_behind_one_gate():
    mixer = prepared(EVSS.example())
    x = torch.randn(2, 12, 8, dtype=torch.float64)

    def gate(y):
        mean = F.layer_norm(y, (8,), mixer.se.norm.weight, mixer.se.norm.bias).mean(1)
        hidden = F.gelu(mean @ mixer.se.reduce.weight.T + mixer.se.reduce.bias)
        return y * torch.sigmoid(hidden @ mixer.se.select.weight.T + mixer.se.select.bias)[:, None]

    near = mixer.conv_branch(x.transpose(1, 2).reshape(2, 8, 3, 4)).flatten(2).transpose(1, 2)
    assert_equal(mixer(x)[0], gate(mixer.op(x)[0]) + gate(near), "EVSS")


def test_an_inverted_residual_is_its_convolutions():
    mixer = prepared(InvertedResidual.example())
    x = torch.randn(2, 12, 4, dtype=torch.float64)
    wide = mixer.near(x.transpose(1, 2).reshape(2, 4, 3, 4))
    mean = wide.mean((2, 3))
    hidden = F.relu(mean @ mixer.gate.reduce.weight.T + mixer.gate.reduce.bias)
    weights = torch.sigmoid(hidden @ mixer.gate.select.weight.T + mixer.gate.select.bias)
    back = mixer.back(wide * weights[..., None, None]).flatten(2).transpose(1, 2)
    assert_equal(mixer(x)[0], back, "inverted residual")


def test_dropping_paths_keeps_the_mean_and_whole_rows():
    layer = DropPath(0.25)
    y = layer(torch.ones(4000, 3))
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (y[:, 0] == y[:, 1]).all()
    assert abs(float(y.mean()) - 1) < 0.05
    assert torch.equal(layer.eval()(torch.ones(3, 2)), torch.ones(3, 2))
    with pytest.raises(ValueError, match="below 1"):
        DropPath(1.0)


@pytest.mark.parametrize("merge", ["patches", "convs"])
def test_a_pyramid_halves_its_grid_and_widens(merge):
    options = {"pyramid": {"sizes": [5, 6], "depths": [2, 1, 1], "widths": [1, 2, 2], "merge": merge}}
    spec = config.stack_spec("pyramid:ss2d", 8, options=options | {"ss2d": {"sizes": [5, 6], "d_state": 2}})
    pyramid = config.build(spec, "backbones")
    assert [[block.mixer.sizes for block in stage.blocks] for stage in pyramid.stages] == [
        [[5, 6], [5, 6]],
        [[3, 3]],
        [[2, 2]],
    ]
    assert (pyramid.d_model, pyramid.d_out) == (8, 16)
    y, state = pyramid(torch.randn(2, 30, 8))
    assert (y.shape, state) == ((2, 4, 16), ())
    y.square().sum().backward()
    assert all(p.grad is not None for p in pyramid.parameters())


def test_a_merged_patch_is_its_four_neighbours_and_zeros_beyond_the_edge():
    merge = Pyramid.example().halves[0]
    merge.norm, merge.reduction = nn.Identity(), nn.Identity()
    x = torch.arange(15.0)[None, :, None].expand(1, 15, 6)
    y = merge(x, [3, 5])[0, :, ::6]
    assert y[0].tolist() == [0, 5, 1, 6]
    assert y[5].tolist() == [14, 0, 0, 0]


def test_one_pattern_a_stage_and_blocks_that_bring_their_norms():
    options = {
        "pyramid": {"sizes": [8, 8]},
        "evss": {"sizes": [8, 8]},
        "inverted_residual": {"sizes": [8, 8]},
    }
    spec = config.stack_spec("pyramid:evss:inverted_residual", 8, 2, norm="layer", options=options)
    first, second = spec["stages"]
    assert [block["norm"] for block in first["blocks"]] == ["layer", "layer"]
    assert [block["norm"] for block in second["blocks"]] == ["none", "none"]
    assert [block["mlp"] for block in first["blocks"]] == [None, None]
    assert [block["mixer"]["sizes"] for block in second["blocks"]] == [[4, 4], [4, 4]]
    assert config.build(spec, "backbones")(torch.randn(2, 64, 8))[0].shape == (2, 16, 16)


def test_grids_are_halved_rounding_up():
    assert grids([7, 4], 4) == [[7, 4], [4, 2], [2, 1], [1, 1]]


@pytest.mark.parametrize(
    ("pattern", "options", "said"),
    [
        ("pyramid:gru", {}, "needs the rows and columns"),
        ("pyramid:gru", {"sizes": [4, 4], "merge": "pool"}, "merge"),
        ("pyramid:gru", {"sizes": [4, 4], "hight": 3}, "no option 'hight'"),
        ("pyramid:gru:lru:gru", {"sizes": [4, 4], "depths": [1, 1]}, "each of its 2 stages; got 3"),
        ("pyramid:gru", {"sizes": [4, 4], "depths": [1, 1], "widths": [1]}, "widths are one for each"),
    ],
)
def test_pyramids_that_cannot_be_built(pattern, options, said):
    with pytest.raises(ValueError, match=said):
        config.build(config.stack_spec(pattern, 8, options={"pyramid": options}), "backbones")


def test_a_pyramid_refuses_what_a_grid_has_not():
    pyramid = Pyramid.example()
    for call in (
        lambda: pyramid.init_state(1),
        lambda: pyramid.step(torch.zeros(1, 6), ()),
        lambda: pyramid(torch.zeros(1, 15, 6), ()),
    ):
        with pytest.raises(ValueError, match="neither a state nor a step"):
            call()
    with pytest.raises(ValueError, match="whole grids of 3 x 5 = 15 tokens"):
        pyramid(torch.zeros(1, 14, 6))
    with pytest.raises(ValueError, match="1 or more each"):
        Pyramid(list(Pyramid.example().stages), [0, 5])
    with pytest.raises(ValueError, match="one stage at least"):
        Pyramid([], [3, 5])


def test_a_classifier_of_sequences_takes_none():
    stack = config.stack_spec("pyramid:gru", 8, options={"pyramid": {"sizes": [4, 4]}})
    with pytest.raises(ValueError, match="by the kind 'vision'"):
        config.build({"kind": "classification", "classes": ["a", "b"], "channels": 1, "backbone": stack})


def test_a_gate_of_zero_weights_halves():
    gate = ChannelGate(3, 2, "relu")
    for p in gate.select.parameters():
        nn.init.zeros_(p)
    x = torch.randn(2, 4, 3)
    assert torch.equal(gate(x), 0.5 * x)
