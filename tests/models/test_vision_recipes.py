"""Published picture models: their parameters and multiply-adds against the digits of their papers' tables."""

from importlib import import_module

import pytest
import torch

from hippodrome.analyze.products import count_products
from hippodrome.config import build, count_parameters
from hippodrome.models.vision import VisionModel

CLASSES = [str(i) for i in range(1000)]


def spec(name):
    made = import_module(f"hippodrome.recipes.{name}").RECIPE.model
    return {"kind": "vision", "classes": CLASSES, "backbone": made.stack(), **made.vision}


# Ours exactly, and millions as published; where these are without the head, the width of the head's input.
PARAMETERS = [
    ("vim_ti", 7_148_008, 7, 0),
    ("vmamba_t", 30_249_064, 30, 0),
    ("efficient_vmamba_s", 11_273_688, 11, 512),
]


@pytest.mark.parametrize(("name", "ours", "millions", "head"), PARAMETERS)
def test_parameters_round_to_those_published(name, ours, millions, head):
    found = count_parameters(spec(name))
    assert found == ours
    assert round((found - (head * 1000 + 1000 if head else 0)) / 1e6) == millions


def test_multiply_adds_round_to_those_published():
    model = build(spec("efficient_vmamba_t")).eval()
    with torch.no_grad():
        found = count_products(lambda: model.logits(torch.zeros(1, 224 * 224, 3)))
    assert round(found.published / 1e9, 1) == 0.8


def test_products_are_counted_by_hand():
    model = VisionModel.example().eval()
    with torch.no_grad():
        found = count_products(lambda: model.logits(torch.zeros(2, 48, 1)))
    # A stem of 4 pixels a patch, 12 tokens; two blocks of MinGRU and a gated perceptron; a head of 3 classes.
    block = sum(m.weight.numel() for m in model.backbone.modules() if isinstance(m, torch.nn.Linear))
    assert found.multiply_adds == 2 * (12 * 4 * 8 + 12 * block + 8 * 3)
    assert found.scans == 0
