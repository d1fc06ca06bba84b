"""Options of the classifier: sequences standardized, several models averaged, and what a folder keeps."""

from pathlib import Path

import numpy as np
import pytest

import hippodrome
from hippodrome.estimators import Classifier

TINY = {"width": 8, "depth": 1, "budget": "20steps", "device": "cpu", "model": "min_gru"}


def slopes(count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    up = np.arange(count) % 2
    values = (2 * up - 1)[:, None] * np.linspace(-1, 1, 10) + 0.1 * rng.normal(size=(count, 10))
    return values, np.where(up, "up", "down")


@pytest.fixture(scope="module")
def several() -> Classifier:
    return Classifier(normalize=True, augment=0.5, members=3, pooling="mean", **TINY).fit(*slopes())


def test_level_and_size_do_not_count_where_sequences_are_standardized(several: Classifier) -> None:
    X, _ = slopes()
    chances = several.predict_proba(X)
    np.testing.assert_allclose(several.predict_proba(1e3 + 50 * X), chances, atol=1e-3)
    plain = Classifier(**TINY).fit(*slopes())
    assert np.abs(plain.predict_proba(1e3 + 50 * X) - plain.predict_proba(X)).max() > 0.05


def test_probabilities_are_the_mean_of_the_members(several: Classifier) -> None:
    assert several.members == 3
    X, _ = slopes()
    whole = several.predict_proba(X)
    others, several.others_ = several.others_, []
    try:
        alone = several.predict_proba(X)
    finally:
        several.others_ = others
    assert len(others) == 2
    assert np.abs(alone - whole).max() > 1e-4
    np.testing.assert_allclose(whole.sum(1), 1, rtol=1e-9)
    weights = [dict(one.named_parameters())["head.weight"] for one in others]
    assert not bool((weights[0] == weights[1]).all())


def test_saved_and_loaded_it_answers_the_same(several: Classifier, tmp_path: Path) -> None:
    several.save(tmp_path / "kept")
    again = hippodrome.load(tmp_path / "kept")
    assert isinstance(again, Classifier)
    assert (again.members, again.normalize, again.augment, again.pooling) == (3, True, 0.5, "mean")
    X, y = slopes()
    np.testing.assert_allclose(again.predict_proba(X), several.predict_proba(X), rtol=1e-5, atol=1e-6)
    assert again.score(X, y) == several.score(X, y)


def test_refuses_no_model_at_all() -> None:
    with pytest.raises(ValueError, match="one model is trained at least; got members=0"):
        Classifier(members=0, **TINY).fit(*slopes())
