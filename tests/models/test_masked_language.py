"""What is peculiar to the masked language model: what is asked and nothing else, both ways, two strands."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.attention import Attention
from hippodrome.mixers.mamba import Mamba
from hippodrome.models.masked_language import MaskedLanguageModel
from hippodrome.shapes import TokenBatch
from hippodrome.testing.models import check_loss, check_metrics, check_packing, prepared, to_float64


def both_ways(kind: type[nn.Module] = Mamba) -> MaskedLanguageModel:
    blocks = [Block(Bidirectional(kind(8), kind(8))) for _ in range(2)]  # type: ignore[arg-type]
    return MaskedLanguageModel(Stack(blocks), 11)


@pytest.mark.parametrize("kind", [Mamba, Attention])
def test_contract_of_a_backbone_that_reads_both_ways(kind: type[nn.Module]) -> None:
    model, batch = prepared(both_ways(kind)), to_float64(MaskedLanguageModel.example_batch())
    for check in (check_loss, check_metrics, check_packing):
        check(model, batch)
    with pytest.raises(ValueError, match="neither a state nor a step"):
        model.init_state(2)


def test_loss_is_the_cross_entropy_at_the_places_asked_alone() -> None:
    model, batch = prepared(both_ways()), MaskedLanguageModel.example_batch()
    logits, _ = model(batch.tokens)
    plain = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-100)
    torch.testing.assert_close(model.loss(batch), plain, rtol=1e-12, atol=0)
    found = model.metrics(batch)
    assert found["nats"].count == int((batch.targets != -100).sum()) == 6
    assert math.isclose(found["bits_per_byte"].value, found["nats"].value / math.log(2))
    nothing = batch._replace(targets=torch.full_like(batch.targets, -100))
    assert float(model.loss(nothing).detach()) == 0
    assert model.metrics(nothing)["nats"].count == 0


def test_both_sides_of_a_hidden_place_are_read_and_the_place_itself_only_as_hidden() -> None:
    model, batch = prepared(both_ways()), MaskedLanguageModel.example_batch()
    before = model(batch.tokens)[0][0, 4]
    for place in (0, 7):
        other = batch.tokens.clone()
        other[0, place] = (other[0, place] + 1) % 11
        assert not torch.allclose(model(other)[0][0, 4], before)


def test_bytes_are_those_of_the_tokens_asked() -> None:
    bytes_of = list(range(1, 12))
    model = MaskedLanguageModel(Stack.example(), 11, bytes_per_token=bytes_of)
    batch = MaskedLanguageModel.example_batch()
    found = model.metrics(batch)["bits_per_byte"]
    assert found.count == sum(bytes_of[i] for i in batch.targets.flatten().tolist() if i >= 0)


def test_a_mask_token_of_the_vocabulary_adds_none() -> None:
    assert MaskedLanguageModel(Stack.example(), 11).embedding.num_embeddings == 12
    own = MaskedLanguageModel(Stack.example(), 12, mask_token=3)
    assert (own.embedding.num_embeddings, own.mask_token) == (12, 3)
    assert own(torch.tensor([[3, 4]]))[0].shape == (1, 2, 12)


def test_pseudo_nats_hide_one_place_at_a_time() -> None:
    model, tokens = prepared(both_ways()), torch.tensor([4, 1, 9, 9, 2])
    found = model.pseudo_nats(tokens, at_once=2)
    for place in range(5):
        row = tokens.clone()
        row[place] = model.mask_token
        logits = model(row[None])[0][0, place]
        torch.testing.assert_close(found[place], -logits.log_softmax(-1)[tokens[place]].detach())


class TwoStrands(nn.Module):
    """Not causal, and by construction the same for both strands: each half is averaged over its row."""

    strands, causal, accepts_resets, d_model = 2, False, False, 8

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, state: Any = None, **more: Any) -> tuple[torch.Tensor, tuple]:
        one, other = x.chunk(2, -1)
        steps = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
        read = lambda half: self.map((half / steps).cumsum(1).tanh())  # noqa: E731
        back = read(other.flip(1, 2)).flip(1, 2)
        return torch.cat([read(one), back], -1), ()


def test_logits_of_the_reverse_complement_over_two_strands() -> None:
    complement = [3, 2, 1, 0, 4]
    model = MaskedLanguageModel(TwoStrands(), 5, complement=complement).double()
    nn.init.normal_(model.embedding.weight)
    tokens = torch.tensor([[0, 1, 5, 2, 2, 3, 4]])
    pairs = torch.tensor([*complement, 5])
    turned = model(pairs[tokens].flip(1))[0]
    wanted = model(tokens)[0].flip(1)[..., complement]
    torch.testing.assert_close(turned, wanted, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(turned, model(tokens)[0])


def test_refusals() -> None:
    with pytest.raises(ValueError, match="one of the 11 token ids"):
        MaskedLanguageModel(Stack.example(), 11, mask_token=11)
    with pytest.raises(ValueError, match="it has 2"):
        MaskedLanguageModel(Stack.example(), 11, bytes_per_token=[1, 1])
    with pytest.raises(ValueError, match="its own inverse"):
        MaskedLanguageModel(Stack.example(), 3, complement=[1, 2, 0])
    with pytest.raises(ValueError, match="two strands"):
        MaskedLanguageModel(TwoStrands(), 5)
    assert isinstance(MaskedLanguageModel.example_batch(), TokenBatch)
