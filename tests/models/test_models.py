"""Every model of the house is held to the contract, over several mixers."""

import importlib
import pkgutil

import pytest
import torch
from torch import nn

from hippodrome import models
from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.models.base import Model
from hippodrome.testing.models import check_model


def model_classes() -> list[type[Model]]:
    """The final model of each file of the folder."""
    found = []
    for module in pkgutil.iter_modules(models.__path__):
        if module.name == "base" or module.name.startswith("_"):
            continue
        file = importlib.import_module(f"hippodrome.models.{module.name}")
        found += [
            kind
            for kind in vars(file).values()
            if isinstance(kind, type) and issubclass(kind, Model) and kind.__module__ == file.__name__
        ]
    return found


def over(kind: type[Model], mixer_name: str, class_name: str) -> Model:
    """The model's example with its backbone replaced by two blocks of another mixer."""
    model = kind.example()
    mixer = getattr(importlib.import_module(f"hippodrome.mixers.{mixer_name}"), class_name)
    width = model.backbone.d_model
    model.backbone = Stack([Block(mixer(width)), Block(mixer(width))])
    return model


@pytest.mark.parametrize("kind", model_classes())
def test_contract(kind: type[Model]) -> None:
    check_model(kind.example(), kind.example_batch())


@pytest.mark.parametrize(
    "mixer", [("s4d", "S4D"), ("mamba", "Mamba"), ("gru", "GRU"), ("attention", "Attention")]
)
@pytest.mark.parametrize("kind", model_classes())
def test_contract_over_mixers(kind: type[Model], mixer: tuple[str, str]) -> None:
    check_model(over(kind, *mixer), kind.example_batch())


@pytest.mark.parametrize("kind", model_classes())
def test_check_finds_a_broken_metric(kind: type[Model], monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = kind.example(), kind.example_batch()
    honest = kind.metrics
    name = model.objective.metric
    monkeypatch.setattr(kind, "metrics", lambda self, b: {name: honest(self, b)[name]._replace(count=7)})
    with pytest.raises(AssertionError, match="add up"):
        check_model(model, batch)


@pytest.mark.parametrize("kind", model_classes())
def test_check_finds_a_dead_parameter(kind: type[Model]) -> None:
    model = kind.example()
    model.unused = nn.Parameter(torch.zeros(3))
    with pytest.raises(AssertionError, match="unused gets no gradient"):
        check_model(model, kind.example_batch())
