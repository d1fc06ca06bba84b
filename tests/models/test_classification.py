"""What is peculiar to the classifier: pooling over valid steps alone, running answers, missing values."""

import pytest
import torch

from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.backbones.block import Block
from hippodrome.backbones.s4nd import S4ND
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.gru import GRU
from hippodrome.models.classification import ClassificationModel
from hippodrome.shapes import LabelledBatch


def classifier(pooling: str = "mean", **options: object) -> ClassificationModel:
    return ClassificationModel(Stack.example(), ["a", "b"], pooling=pooling, **options).double()  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["mean", "last", "both"])
def test_answer_is_the_running_one_at_the_last_valid_step(pooling: str) -> None:
    model = classifier(pooling, channels=2)
    inputs, lengths = torch.randn(3, 7, 2).double(), torch.tensor([7, 1, 4])
    running, _ = model(inputs)
    expected = running[torch.arange(3), lengths - 1]
    torch.testing.assert_close(model.logits(inputs, lengths), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pooling", ["mean", "last", "both"])
def test_padding_changes_nothing(pooling: str) -> None:
    model = classifier(pooling, channels=2)
    inputs = torch.randn(1, 4, 2).double()
    padded = torch.cat([inputs, torch.full((1, 9, 2), 1e6).double()], 1)
    alone, behind = (model.logits(x, torch.tensor([4])) for x in (inputs, padded))
    torch.testing.assert_close(alone, behind, rtol=1e-12, atol=0)


def test_mean_is_over_the_steps_since_the_reset() -> None:
    model = classifier(channels=2)
    inputs = torch.randn(2, 6, 2).double()
    resets = torch.zeros(2, 6, dtype=torch.bool)
    resets[1, 3] = True
    both, state = model(inputs, resets=resets)
    alone, _ = model(inputs[1:, 3:])
    torch.testing.assert_close(both[1:, 3:], alone, rtol=1e-9, atol=1e-12)
    assert state.steps[:, 0].tolist() == [6, 3]


def test_tokens_are_read_by_an_embedding() -> None:
    model = classifier(vocab_size=5)
    batch = LabelledBatch(torch.randint(5, (3, 4)), torch.tensor([4, 2, 3]), torch.tensor([0, 1, 1]))
    assert model.loss(batch).isfinite()
    assert model.tokens(batch) == 9


def test_missing_value_is_the_mean_of_its_channel() -> None:
    model = classifier(channels=2, location=[3.0, -1.0], scale=[2.0, 0.0])
    inputs = torch.randn(1, 4, 2).double()
    known = inputs.clone()
    inputs[0, 2, 0], known[0, 2, 0] = float("nan"), 3.0
    torch.testing.assert_close(model(inputs)[0], model(known)[0], rtol=1e-12, atol=0)


def test_scaling_is_part_of_the_model() -> None:
    model = classifier(channels=2, location=[3.0, -1.0], scale=[2.0, 0.5])
    plain = classifier(channels=2)
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if k not in ("location", "scale")}, False
    )
    inputs = torch.randn(2, 4, 2).double()
    raw = inputs * torch.tensor([2.0, 0.5]).double() + torch.tensor([3.0, -1.0]).double()
    torch.testing.assert_close(model(raw)[0], plain(inputs)[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give channels or vocab_size"),
        ({"channels": 2, "vocab_size": 3}, "give channels or vocab_size"),
        ({"channels": 2, "classes": ["a"]}, "two classes at least"),
        ({"channels": 2, "location": [1.0]}, "location holds one number for each of the 2 channels; got 1"),
        ({"channels": 2, "pooling": "max"}, "pooling is 'mean' or 'last'; got 'max'"),
    ],
)
def test_refuses_what_does_not_fit(options: dict, words: str) -> None:
    options = {"classes": ["a", "b"], **options}
    if options.get("pooling") == "max":
        with pytest.raises(Exception, match="max"):
            ClassificationModel(Stack.example(), **options)
        return
    with pytest.raises(ValueError, match=words):
        ClassificationModel(Stack.example(), **options)


def two_way() -> ClassificationModel:
    torch.manual_seed(0)
    backbone = Stack([Block(Bidirectional(GRU(8), GRU(8))), Block(Bidirectional(GRU(8), GRU(8)))])
    return ClassificationModel(backbone, ["a", "b"], channels=2).double().eval()


def test_a_backbone_that_reads_both_ways_sees_no_padding() -> None:
    model = two_way()
    x = torch.randn(3, 9, 2, dtype=torch.float64)
    lengths = torch.tensor([9, 4, 1])
    together = model.logits(x, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = model.logits(x[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)
    with pytest.raises(ValueError, match="neither a state nor a step"):
        model(x)


def test_a_grid_is_classified() -> None:
    torch.manual_seed(0)
    model = ClassificationModel(Stack([Block(S4ND(8, [3, 4], d_state=4))]), ["a", "b"], channels=2)
    x = torch.randn(5, 12, 2)
    model.loss(LabelledBatch(x, torch.full((5,), 12), torch.tensor([0, 1, 1, 0, 1]))).backward()
    assert all(p.grad is not None for p in model.parameters())
