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
from hippodrome.testing.models import (
    check_files,
    check_groups,
    check_loss,
    check_metrics,
    check_padding,
    check_stream,
    prepared,
    to_float64,
)


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


@pytest.mark.parametrize("pooling", ["mean", "last", "both"])
def test_a_row_of_padding_alone_is_answered_without_looking_at_it(pooling: str) -> None:
    model = classifier(pooling, channels=2)
    inputs, lengths = torch.randn(3, 5, 2).double(), torch.tensor([5, 0, 3])
    inputs[1] = torch.nan
    found = model.logits(inputs, lengths)
    torch.testing.assert_close(found[::2], model.logits(inputs[::2], lengths[::2]))
    model.loss(LabelledBatch(inputs, lengths, torch.tensor([0, 1, 1]))).backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
    assert bool(found.isfinite().all())


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


def of_pairs(**options: object) -> ClassificationModel:
    torch.manual_seed(0)
    return ClassificationModel(Stack.example(), ["a", "b", "c"], pairs=True, **options)  # type: ignore[arg-type]


def pairs(values: bool) -> LabelledBatch:
    lengths, labels = torch.tensor([7, 3, 5, 7, 1, 6]), torch.tensor([0, 2, 1])
    inputs = torch.randn(6, 7, 2) if values else torch.randint(5, (6, 7))
    return LabelledBatch(inputs, lengths, labels)


@pytest.mark.parametrize("values", [True, False])
def test_pairs_keep_the_contract(values: bool) -> None:
    batch = pairs(values)
    model = prepared(of_pairs(channels=2) if values else of_pairs(vocab_size=5))
    wide = to_float64(batch)
    # Not check_resets: a reset of one of the two is no start of the pair.
    for check in (check_loss, check_metrics, check_stream, check_padding, check_files):
        check(model, wide)
    check_groups(model)
    assert model.tokens(batch) == 29
    running, _ = model(wide.inputs)
    assert running.shape == (3, 7, 3)
    whole = LabelledBatch(wide.inputs, torch.full((6,), 7), wide.labels)
    torch.testing.assert_close(model.logits(*whole[:2]), running[:, -1], rtol=1e-9, atol=1e-12)


def test_neither_tower_sees_the_other_or_another_pair() -> None:
    model, batch = of_pairs(channels=2).double().eval(), to_float64(pairs(True))
    together = model.logits(batch.inputs, batch.lengths)
    features = {}
    for row in range(6):
        length = int(batch.lengths[row])
        out, _ = model.backbone(model.input(batch.inputs[row : row + 1, :length]))
        features[row] = torch.cat([out.mean(1), out[:, -1]], -1)
    for i in range(3):
        e, f = features[2 * i], features[2 * i + 1]
        read = torch.cat([e, f, e * f, e - f], -1)
        by_hand = model.head(torch.nn.functional.gelu(model.joint(read)))
        torch.testing.assert_close(together[i : i + 1], by_hand, rtol=1e-9, atol=1e-12)


def test_swapping_a_pair_swaps_what_is_read_of_it() -> None:
    model, batch = of_pairs(vocab_size=5).double().eval(), pairs(False)
    swapped = torch.tensor([1, 0, 3, 2, 5, 4])
    plain = model.logits(batch.inputs, batch.lengths)
    other = model.logits(batch.inputs[swapped], batch.lengths[swapped])
    assert not torch.allclose(plain, other)
    with torch.no_grad():
        e, f, both, apart = model.joint.weight.chunk(4, 1)
        model.joint.weight.copy_(torch.cat([f, e, both, -apart], 1))
        undone = model.logits(batch.inputs[swapped], batch.lengths[swapped])
        torch.testing.assert_close(undone, plain, rtol=1e-9, atol=1e-12)
        model.joint.weight.copy_(torch.cat([e, e, both, 0 * apart], 1))  # what is symmetric answers alike
        one, two = (model.logits(batch.inputs[o], batch.lengths[o]) for o in (torch.arange(6), swapped))
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="got 5 rows, an odd number"):
        of_pairs(channels=2).logits(torch.randn(5, 4, 2), torch.full((5,), 4))
