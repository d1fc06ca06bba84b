"""Maps of what layers read and memories of their states, taken from a model as it runs."""

import math

import numpy as np
import pytest
import torch

from hippodrome.analyze.channel_memory import channel_memory, memory_chart
from hippodrome.analyze.hidden_attention import attention_maps, hidden_attention, inputs_of_mixers
from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.backbones.bimamba import BiMamba
from hippodrome.backbones.block import Block
from hippodrome.backbones.hydra import Hydra
from hippodrome.backbones.shared_attention import SharedAttention
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.gru import GRU
from hippodrome.mixers.mamba import Mamba
from hippodrome.mixers.mixture_of_mamba import MixtureOfMamba
from hippodrome.mixers.rg_lru import RGLRU


def test_maps_are_of_the_layers_that_have_them_in_the_order_of_the_input() -> None:
    torch.manual_seed(0)
    both = Bidirectional(Mamba(8, d_state=4), Mamba(8, d_state=4))
    stack = Stack([Block(Mamba(8, d_state=4)), Block(GRU(8)), Block(both)])
    x = torch.randn(2, 9, 8)
    seen = inputs_of_mixers(stack, lambda: stack(x))
    assert [one.layer for one in seen] == ["blocks.0.mixer", "blocks.2.mixer.ahead", "blocks.2.mixer.back"]
    first, ahead, back = (hidden_attention(one, 1, 6) for one in seen)
    mixer = stack.blocks[0].mixer
    with torch.no_grad():
        whole = mixer.hidden_attention(stack.blocks[0].norm(x))[1]
    np.testing.assert_allclose(first.weights, whole[:, :6, :6], atol=1e-6)
    assert not np.triu(first.weights, 1).any()
    assert not np.triu(ahead.weights, 1).any()
    assert not np.tril(back.weights, -1).any()
    assert np.triu(back.weights, 1).any()
    np.testing.assert_allclose(first.mean.sum(-1), 1, atol=1e-6)
    assert 0 < first.reach() < 6
    assert attention_maps([first, ahead, back], list("abcdef")).svg().startswith("<svg")


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_both_directions_of_bimamba_are_shown_in_the_order_of_the_input(tied: bool) -> None:
    torch.manual_seed(0)
    stack = Stack([Block(BiMamba(8, tied=tied, d_state=4)), Block(Hydra(8, d_state=4, head_dim=4))])
    x = torch.randn(1, 9, 8)
    ahead, back, last = inputs_of_mixers(stack, lambda: stack(x))
    names = ["blocks.0.mixer.mamba_fwd", "blocks.0.mixer.mamba_rev", "blocks.1.mixer"]
    assert [ahead.layer, back.layer, last.layer] == names
    normed, both = stack.blocks[0].norm(x), stack.blocks[0].mixer
    torch.testing.assert_close(back.x, normed.flip(1))
    y = both.mamba_fwd(ahead.x)[0] + both.mamba_rev(back.x)[0].flip(1)
    torch.testing.assert_close(y, both(normed)[0])
    assert not np.triu(hidden_attention(ahead).weights, 1).any()
    shown = hidden_attention(back, length=6)
    assert shown.backwards
    whole = both.mamba_rev.hidden_attention(back.x)[0].flip(1, 2).numpy()
    np.testing.assert_allclose(shown.weights, whole[:, :6, :6])
    # What reads both ways is asked about the whole row and cut off afterwards.
    whole = last.mixer.hidden_attention(last.x)[0].numpy()
    np.testing.assert_allclose(hidden_attention(last, length=6).weights, whole[:, :6, :6])
    assert channel_memory(last.mixer, last.x).window == 9


@torch.no_grad()
def test_a_layer_used_twice_is_named_twice() -> None:
    backbone = SharedAttention(Stack([Block(GRU(8)) for _ in range(3)]), [0, 2], heads=2, rank=2)
    seen = inputs_of_mixers(backbone, lambda: backbone(torch.randn(1, 5, 8)))
    assert [one.layer for one in seen] == ["shared.0.attention", "shared.0.attention (use 2)"]


def test_modalities_are_told() -> None:
    torch.manual_seed(1)
    stack = Stack([Block(MixtureOfMamba(8, d_state=4))])
    x, modality = torch.randn(1, 5, 8), torch.tensor([[0, 1, 1, 0, 1]])
    (told,) = inputs_of_mixers(stack, lambda: stack(x, modality=modality))
    (silent,) = inputs_of_mixers(stack, lambda: stack(x))
    assert not np.allclose(hidden_attention(told).weights, hidden_attention(silent).weights)
    memory = channel_memory(told.mixer, told.x, modality=told.modality)
    assert not np.allclose(memory.tokens, channel_memory(silent.mixer, silent.x).tokens)


def test_a_channel_that_decays_by_a_known_number_has_its_memory() -> None:
    mixer = RGLRU(4)
    with torch.no_grad():
        mixer.gates.weight.zero_()
        mixer.gates.bias[:4] = 100.0
        keep = torch.tensor([0.5, 0.9, 0.99, 0.999])
        log_a = keep.log() / 8
        mixer.Lambda.copy_(log_a - torch.log(-torch.expm1(log_a)))
    memory = channel_memory(mixer, torch.randn(2, 100, 4), "it")
    np.testing.assert_allclose(memory.tokens, [-1 / math.log(a) for a in keep.tolist()], rtol=1e-4)
    np.testing.assert_allclose(memory.left, keep.numpy() ** 100, rtol=1e-3)
    assert memory.global_share == 0.5
    assert channel_memory(mixer, torch.randn(2, 100, 4), length=20).global_share == 0.75
    assert memory_chart([memory]).svg().startswith("<svg")
    with pytest.raises(ValueError, match="no decays"):
        channel_memory(GRU(4), torch.randn(1, 3, 4))
