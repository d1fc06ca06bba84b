"""Where attention was spent: what hooks see, shares of valid tokens, the map, and who is refused."""

import numpy as np
import pytest
import torch

from hippodrome.analyze.spent import Spent, attention_spent, share, share_by_token, spent_map
from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.backbones.stack import Block, Stack
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.mixers.seqboat import SeqBoat


def test_every_layer_tells_what_it_activated_on_its_own_input() -> None:
    torch.manual_seed(0)
    first = SeqBoat.example()
    stack = Stack([Block(first), Block(SeqBoat.example())])
    x = torch.randn(2, 11, 8)
    found = attention_spent(stack, lambda: stack(x))
    assert [s.layer for s in found] == ["blocks.0.mixer", "blocks.1.mixer"]
    expected = first.activation(stack.blocks[0].norm(x))
    assert np.array_equal(found[0].active, expected.active.numpy())
    assert not any(m._forward_pre_hooks for m in stack.modules())


def test_a_reversed_branch_is_told_in_the_order_of_the_input() -> None:
    torch.manual_seed(0)
    both = Bidirectional(SeqBoat.example(), SeqBoat.example(), "shared")
    x = torch.randn(1, 11, 8)
    back = attention_spent(both, lambda: both(x))[1]
    expected = both.back.activation(x.flip(1)).active.flip(1)
    assert np.array_equal(back.active, expected.numpy())


def test_a_model_that_does_not_choose_is_refused() -> None:
    with pytest.raises(ValueError, match="seqboat"):
        attention_spent(Stack([Block(MinGRU(8))]), lambda: None)


def test_shares_leave_padding_out_and_the_map_names_tokens() -> None:
    active = np.array([[True, False, True, True], [False, True, True, True]])
    spent = Spent("layer", active, np.where(active, 0.9, 0.2))
    assert share(spent, [3, 2]) == pytest.approx(3 / 5)
    tokens = np.array([[7, 7, 5, 5], [7, 5, 0, 0]])
    assert share_by_token(spent, tokens, [3, 2]) == {5: (1.0, 2), 7: (pytest.approx(1 / 3), 3)}
    drawn = spent_map([spent, spent], 3, ["one", "two", "three"]).svg()
    assert "layer 1: 67 %" in drawn
    assert "three" in drawn
