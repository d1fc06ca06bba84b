"""Budgets in words, their fractions, and settings that refuse what they do not know."""

import pytest

from hippodrome.train.settings import Budget, TrainSettings


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("60s", Budget(seconds=60)),
        ("2m", Budget(seconds=120)),
        ("1.5h", Budget(seconds=5400)),
        ("10 minutes", Budget(seconds=600)),
        ("500steps", Budget(steps=500)),
        ("1 step", Budget(steps=1)),
        ("3ksteps", Budget(steps=3000)),
        ("200ktok", Budget(tokens=200_000)),
        ("1Mtok", Budget(tokens=1_000_000)),
        ("2.5Btokens", Budget(tokens=2_500_000_000)),
    ],
)
def test_words(text, budget):
    assert Budget.parse(text) == budget
    assert TrainSettings(budget=text).budget == budget


@pytest.mark.parametrize("text", ["", "60", "s", "60 parsecs", "-5s", "5s 3", "0steps", "1kHz"])
def test_other_words_are_refused(text):
    with pytest.raises(ValueError, match=r"budget|greater than 0"):
        Budget.parse(text)


@pytest.mark.parametrize("given", [{}, {"seconds": 1, "steps": 1}])
def test_exactly_one_unit(given):
    with pytest.raises(ValueError, match="exactly one"):
        Budget(**given)


def test_fractions():
    assert Budget(seconds=10).fraction(steps=1, tokens=1, seconds=5.0) == 0.5
    assert Budget(steps=10).fraction(steps=5, tokens=1, seconds=1.0) == 0.5
    assert Budget(tokens=10).fraction(steps=1, tokens=5, seconds=1.0) == 0.5


def test_settings_survive_json():
    settings = TrainSettings(budget="3m", betas=(0.8, 0.9), patience=3)
    assert TrainSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("given", [{"batchsize": 3}, {"lr": 0}, {"warmup": 1.0}, {"precision": "8-bit"}])
def test_mistakes_are_refused(given):
    with pytest.raises(ValueError, match=next(iter(given))):
        TrainSettings(**given)
