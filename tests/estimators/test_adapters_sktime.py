"""Our forecaster in the interface of sktime, in an environment that has it (``make adapters``)."""

from typing import Any

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.adapters
pytest.importorskip("sktime", reason="sktime is not installed: make adapters")

import pandas as pd  # noqa: E402
from sktime.utils.estimator_checks import check_estimator  # noqa: E402

from hippodrome.estimators import Classifier, Forecaster  # noqa: E402
from hippodrome.estimators.adapters.sktime import HippodromeForecaster  # noqa: E402

SMALL: dict[str, Any] = {"width": 8, "depth": 1, "look_back": 8, "budget": "3steps", "device": "cpu"}


def series(rows: int = 60, columns: int = 1, seed: int = 0) -> pd.DataFrame:
    """Random walks by the day."""
    values = np.random.default_rng(seed).normal(size=(rows, columns)).cumsum(0)
    index = pd.date_range("2024-01-01", periods=rows, freq="D")
    return pd.DataFrame(values, index, [f"y{i}" for i in range(columns)])


def test_it_keeps_every_contract_of_sktime() -> None:
    found = check_estimator(HippodromeForecaster, verbose=False)
    assert len(found) > 500
    assert {name: error for name, error in found.items() if error != "PASSED"} == {}


def test_forecasts_and_learned_quantiles_are_those_of_the_model() -> None:
    y = series(columns=2)
    forecaster = HippodromeForecaster(**SMALL, quantiles=(0.1, 0.5, 0.9)).fit(y, fh=[2, 5])
    with torch.no_grad():
        past = torch.tensor(y.to_numpy()[None, -8:], dtype=torch.float32)
        expected = forecaster.network_(past)[0][0, [1, 4]].numpy()
    found = forecaster.predict()
    assert list(found.index) == [y.index[-1] + pd.Timedelta(days=n) for n in (2, 5)]
    np.testing.assert_allclose(found, expected[..., 0], rtol=1e-5)
    bands = forecaster.predict_quantiles(alpha=[0.1, 0.9])
    np.testing.assert_allclose(bands["y1"], expected[:, 1][:, [1, 3]], rtol=1e-5)
    wider = forecaster.predict_quantiles(alpha=[0.01, 0.1, 0.3, 0.5, 0.8, 0.9, 0.999])["y0"]
    assert (wider.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)


def test_a_panel_of_unequal_lengths_is_learned_by_one_model() -> None:
    parts = {"a": series(40), "b": series(60, seed=1), "c": series(6, seed=2)}
    panel = pd.concat(parts, names=["key", "day"])
    forecaster = HippodromeForecaster(**SMALL).fit(panel, fh=[1, 2])
    assert sum(isinstance(value, torch.nn.Module) for value in vars(forecaster).values()) == 1
    found = forecaster.predict()
    for key, one in parts.items():
        window = np.full((1, 8, 1), np.nan, dtype=np.float32)
        kept = one.to_numpy()[-8:]
        window[0, 8 - len(kept) :] = kept
        with torch.no_grad():
            expected = forecaster.network_(torch.from_numpy(window))[0][0, :, 0, 0]
        np.testing.assert_allclose(found.loc[key, "y0"], expected, rtol=1e-5)
        assert found.loc[key].index[0] == one.index[-1] + pd.Timedelta(days=1)


def test_covariates_are_read_at_the_steps_they_are_of() -> None:
    y, X = series(60), series(63, columns=2, seed=3)
    forecaster = HippodromeForecaster(**SMALL).fit(y, X=X.iloc[:60], fh=[1, 2, 3])
    inputs = np.concatenate([y, X.iloc[:60]], 1)[None, -8:].astype(np.float32)
    known = X.iloc[60:].to_numpy(dtype=np.float32)[None]
    with torch.no_grad():
        expected = forecaster.network_(torch.from_numpy(inputs), known=torch.from_numpy(known))[0][0, :, 0, 0]
    shuffled = X.iloc[[62, 60, 61]][["y1", "y0"]].sort_index()
    np.testing.assert_allclose(forecaster.predict(X=shuffled)["y0"], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="give predict X at the steps"):
        forecaster.predict()


def test_an_update_goes_on_from_the_newest_values_and_learns_only_when_told() -> None:
    y = series(60)
    forecaster = HippodromeForecaster(**SMALL).set_config(remember_data=False).fit(y.iloc[:50], fh=[1])
    weights = [p.clone() for p in forecaster.network_.parameters()]
    forecaster.update(y.iloc[50:], update_params=False)
    assert all(map(torch.equal, forecaster.network_.parameters(), weights))
    with torch.no_grad():
        past = torch.tensor(y.to_numpy()[None, -8:], dtype=torch.float32)
        expected = forecaster.network_(past)[0][0, :, 0, 0]
    found = forecaster.predict()
    assert found.index[0] == y.index[-1] + pd.Timedelta(days=1)
    np.testing.assert_allclose(found["y0"], expected, rtol=1e-5)
    forecaster.update(y.iloc[50:], update_params=True)
    again = HippodromeForecaster(**SMALL).fit(y, fh=[1])
    np.testing.assert_allclose(forecaster.predict(), again.predict(), rtol=1e-6)


def test_it_learns() -> None:
    y = pd.Series(np.sin(np.arange(120) / 3), pd.RangeIndex(120))
    settings = {**SMALL, "budget": "150steps", "lr": 1e-2, "look_back": 24}
    found = HippodromeForecaster(**settings).fit(y.iloc[:110], fh=range(1, 11)).predict()
    assert np.square(found - y.iloc[110:]).mean() < 0.1 * y.var()


def test_a_series_too_short_for_the_horizon_is_told() -> None:
    with pytest.raises(ValueError, match="a horizon of 5 is learned from series of 6 rows"):
        HippodromeForecaster(**SMALL).fit(series(5), fh=[5])


@pytest.mark.parametrize("kind", [Classifier, Forecaster])
def test_scikit_learn_clones_our_estimators(kind: Any) -> None:
    from sklearn.base import clone

    made = kind(model="lru", width=8, budget="3steps")
    again = clone(made)
    assert type(again) is kind
    assert again is not made
    assert again.get_params() == made.get_params()


def test_scikit_learn_searches_and_validates_our_classifier() -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.utils.validation import check_is_fitted

    numbers = np.random.default_rng(0)
    labels = np.array(["low", "high"] * 20)
    X = numbers.normal(size=(40, 10)) + np.where(labels == "high", 3.0, -3.0)[:, None]
    made = Classifier(model="min_gru", width=8, depth=1, budget="30steps", device="cpu")
    with pytest.raises(NotFittedError):
        check_is_fitted(made)
    assert cross_val_score(made, X, labels, cv=2).min() > 0.9
    found = GridSearchCV(made, {"width": [4, 8]}, cv=2).fit(X, labels)
    assert set(found.predict(X)) == {"low", "high"}
