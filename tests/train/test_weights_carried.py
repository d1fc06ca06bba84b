"""What a model begins with of a trained one with the same backbone."""

import pytest
import torch

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.models.classification import ClassificationModel
from hippodrome.models.encoder import EncoderModel
from hippodrome.models.language import LanguageModel
from hippodrome.models.masked_language import MaskedLanguageModel
from hippodrome.models.pretraining import PretrainingModel
from hippodrome.train.weights import carried, start


def test_the_backbone_and_the_rows_of_the_table_that_both_have() -> None:
    masked = MaskedLanguageModel(Stack.example(), 11)
    classifier = ClassificationModel(Stack.example(), ["a", "b"], vocab_size=11)
    encoder, language = EncoderModel(Stack.example(), 11), LanguageModel(Stack.example(), 11)
    for other, table in ((classifier, "input"), (encoder, "embedding"), (language, "embedding")):
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        start(other, carried(masked, other))
        after = other.state_dict()
        assert torch.equal(after[f"{table}.weight"], masked.embedding.weight[:11])
        for name, tensor in masked.backbone.state_dict().items():
            assert torch.equal(after[f"backbone.{name}"], tensor)
        kept = [name for name in before if name.partition(".")[0] not in ("backbone", table)]
        assert all(torch.equal(after[name], before[name]) for name in kept)


def test_a_longer_table_keeps_the_rows_that_are_new() -> None:
    language, masked = LanguageModel(Stack.example(), 11), MaskedLanguageModel(Stack.example(), 11)
    drawn = masked.embedding.weight[11].clone()
    start(masked, carried(language, masked))
    assert torch.equal(masked.embedding.weight[:11], language.embedding.weight)
    assert torch.equal(masked.embedding.weight[11], drawn)


def test_channels_of_values_without_the_one_that_marks_what_is_hidden() -> None:
    pretrained = PretrainingModel.example()
    classifier = ClassificationModel(Stack.example(), ["a", "b"], channels=2)
    start(classifier, carried(pretrained, classifier))
    assert torch.equal(classifier.input.weight, pretrained.input.weight[:, :2])
    assert torch.equal(classifier.location, torch.zeros(2))  # of its own data


def test_a_model_of_the_same_kind_begins_with_its_head_too() -> None:
    one, other = (ClassificationModel(Stack.example(), ["a", "b"], channels=2) for _ in range(2))
    assert torch.equal(carried(one, other)["head.weight"], one.head.weight)


def test_another_backbone_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"another backbone: backbone.blocks.1.* is missing"):
        carried(EncoderModel(Stack([Block.example()]), 11), EncoderModel(Stack.example(), 11))
