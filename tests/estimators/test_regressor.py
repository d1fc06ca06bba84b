"""The regression estimator: what it learns, what it gives back, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest

from hippodrome.estimators import Regressor, load

TINY = {"width": 16, "depth": 1, "dropout": 0.0, "device": "cpu", "lr": 1e-2}


@pytest.fixture(scope="module")
def echo() -> tuple[np.ndarray, np.ndarray]:
    """What came in two steps ago, and half the change of the other channel."""
    x = np.random.default_rng(0).standard_normal((48, 20, 2)).astype(np.float32)
    y = np.stack([np.roll(x[..., 0], 2, 1), 0.5 * np.diff(x[..., 1], axis=1, prepend=x[:, :1, 1])], -1)
    y[:, :2, 0] = np.nan
    return x, y


@pytest.fixture(scope="module")
def fitted(echo: tuple[np.ndarray, np.ndarray]) -> Regressor:
    return Regressor("s4d", deltas=True, budget="120steps", batch_size=16, **TINY).fit(*echo)


def test_it_learns_and_its_score_is_what_is_written_by_hand(fitted: Regressor, echo) -> None:
    x, y = echo
    said = fitted.predict(x)
    assert said.shape == y.shape
    error = np.nansum((said - y) ** 2, (0, 1)) / np.nansum((y - np.nanmean(y, (0, 1))) ** 2, (0, 1))
    assert fitted.score(x, y) == pytest.approx(1 - error.mean(), abs=1e-6)
    assert fitted.score(x, y) > 0.6


def test_it_is_saved_with_all_that_predictions_need(fitted: Regressor, echo, tmp_path: Path) -> None:
    other = load(fitted.save(tmp_path / "kept"))
    assert isinstance(other, Regressor)
    assert other.deltas
    np.testing.assert_array_equal(other.predict(echo[0][:3]), fitted.predict(echo[0][:3]))


def test_predictions_see_no_later_steps_and_lengths_do_not_matter(fitted: Regressor, echo) -> None:
    x, _ = echo
    short = fitted.predict([x[0], x[1, :7]])
    assert [row.shape for row in short] == [(20, 2), (7, 2)]
    np.testing.assert_allclose(short[1], fitted.predict(x[1:2])[0, :7], atol=1e-6)


def test_targets_may_stand_at_the_ends_of_chunks_or_of_whole_sequences() -> None:
    x = np.random.default_rng(1).standard_normal((40, 12)).astype(np.float32)
    chunks = Regressor("hiss:s4d", budget="3steps", **TINY)
    chunks.fit(x, x.reshape(40, 3, 4).mean(2))
    assert chunks.form_.every == 4
    assert chunks.predict(x).shape == (40, 3)
    mean = Regressor("s4d", budget="80steps", batch_size=16, **TINY).fit(x, x.mean(1))
    assert mean.predict(x).shape == (40,)
    assert mean.score(x, x.mean(1)) > 0.8
    short = [x[0], x[1, :5]]
    assert mean.predict(short)[1] == pytest.approx(mean.predict(x[1:2, :5])[0], abs=1e-6)
    uneven = mean.set_params(budget="1steps").fit(short * 2, np.arange(4.0))
    assert uneven.predict(short).shape == (2,)


def test_what_does_not_fit_is_refused_with_a_sentence(fitted: Regressor) -> None:
    x, y = np.zeros((4, 10, 2)), np.zeros((4, 10, 1))
    plain = Regressor(budget="1steps", **TINY)
    for bad, told, message in (
        (x, y[:3], "one for each"),
        (x, y[:, :4], "every k-th"),
        (x, np.full_like(y, np.inf), "targets are finite"),
        (np.full_like(x, np.inf), y, "sequence 0 is"),
        ([], [], "there is one at least"),
        (x[:1], y[:1], "got one"),
    ):
        with pytest.raises(ValueError, match=message):
            plain.fit(bad, told)
    with pytest.raises(ValueError, match="reads 2 channels"):
        fitted.predict(np.zeros((1, 5, 3)))
    with pytest.raises(ValueError, match="learned nothing yet"):
        plain.predict(x)
