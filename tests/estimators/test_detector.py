"""The anomaly detector: scores of injected anomalies, thresholds, steps without a score, saving."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import hippodrome
from hippodrome.estimators import AnomalyDetector
from hippodrome.estimators._cells import foretold, rebuilt
from hippodrome.estimators.detector import _smoothed

TINY = {"width": 8, "depth": 1, "budget": "3steps", "device": "cpu", "window": 16}


def wave(rows: int = 360, spikes: bool = True) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    t = np.arange(rows)
    values = np.stack([np.sin(t / 3), np.cos(t / 3)], 1) + 0.02 * rng.normal(size=(rows, 2))
    labels = np.zeros(rows, dtype=bool)
    if spikes:
        labels[[150, 250, 333]] = True
        values[labels, 0] += 1.0
    frame = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=rows, freq="h")})
    return frame.assign(a=values[:, 0], b=values[:, 1]), labels


@pytest.mark.parametrize(("method", "model"), [("forecast", "min_gru"), ("reconstruction", "bi-min_gru")])
def test_spikes_score_highest_after_some_training(method: str, model: str) -> None:
    frame, labels = wave()
    options = {**TINY, "method": method, "model": model, "budget": "60steps", "lr": 1e-2, "block": 2}
    found = AnomalyDetector(**options).fit(frame)
    assert found.measure(frame, labels)["auroc"] > 0.97
    assert found.get_params()["model"] == model


@pytest.fixture(scope="module")
def detector() -> AnomalyDetector:
    return AnomalyDetector(model="min_gru", horizon=2, contamination=0.05, **TINY).fit(wave()[0])


def test_threshold_is_the_quantile_of_the_scores_learned_from(detector: AnomalyDetector) -> None:
    found = detector.predict()
    assert list(found.columns) == ["ds", "score", "anomaly"]
    scores = found["score"].dropna()
    assert len(found) - len(scores) == 16
    assert detector.threshold_ == pytest.approx(np.quantile(scores, 0.95))
    assert found["anomaly"].sum() == pytest.approx(0.05 * len(scores), abs=1)
    assert not found["anomaly"][:16].any()
    assert detector.predict(threshold=0.0)["anomaly"].sum() == len(scores)


def test_a_score_is_the_error_over_spread_and_usual_error(detector: AnomalyDetector) -> None:
    frame, _ = wave()
    values = frame[["a", "b"]].to_numpy()
    out = foretold(detector.run_.model, values)  # t h c 1+q
    error = np.abs(out[..., 0] - values[:, None])
    usual = np.nanmedian(error, 0)
    ratio = error / ((out[..., 3] - out[..., 1]) / 2 + usual)
    wanted = np.sqrt(np.square(np.nanmean(ratio[16:], 1)).mean(1))
    found = detector.score()["score"].to_numpy()
    assert np.isnan(found[:16]).all()
    np.testing.assert_allclose(found[16:], wanted, rtol=1e-6)


def test_foretold_steps_are_those_of_the_forecasts_before_them(detector: AnomalyDetector) -> None:
    model, values = detector.run_.model, wave()[0][["a", "b"]].to_numpy()[:40]
    found = foretold(model, values)
    with torch.no_grad():
        ahead, _ = model(torch.from_numpy(values[None, 4:20]).float())
    np.testing.assert_allclose(found[[20, 21], [0, 1]], ahead[0].numpy(), rtol=1e-5, atol=1e-6)
    assert np.isnan(found[:16]).all()


def test_a_rebuilt_step_does_not_depend_on_its_own_block() -> None:
    frame, _ = wave()
    found = AnomalyDetector("reconstruction", "bi-min_gru", block=4, **TINY).fit(frame)
    values = frame[["a", "b"]].to_numpy()
    whole = rebuilt(found.run_.model, values, 16, 4, 4)
    other = values.copy()
    other[40:44] = 99.0
    again = rebuilt(found.run_.model, other, 16, 4, 4)
    np.testing.assert_array_equal(again[40:44], whole[40:44])
    assert np.abs(again[36:40] - whole[36:40]).max() > 0.01


def test_missing_cells_have_no_score_and_the_rest_of_their_step_has(detector: AnomalyDetector) -> None:
    frame, _ = wave()
    frame.loc[200, "a"] = np.nan
    frame.loc[300, ["a", "b"]] = np.nan
    scores = detector.score(frame)["score"]
    assert np.isnan(scores[300])
    assert np.isfinite(scores[200])


def test_rows_of_a_long_frame_keep_their_places() -> None:
    frame, _ = wave(60, spikes=False)
    long = pd.concat(
        [pd.DataFrame({"unique_id": key, "ds": frame["date"], "y": frame[key]}) for key in ("a", "b")]
    ).sort_values("ds", kind="stable")
    found = AnomalyDetector(model="min_gru", **TINY).fit(long).predict()
    assert found["unique_id"].tolist() == long["unique_id"].tolist()
    assert found["score"].isna().sum() == 2 * 16


def test_smoothing_averages_what_is_there() -> None:
    scores = np.array([np.nan, 1.0, 2.0, 6.0])
    assert _smoothed(scores, 3)[1:].tolist() == [1.5, 3.0, 4.0]
    assert np.isnan(_smoothed(scores, 3)[0])
    assert _smoothed(np.array([2.0, 4.0]), 5).tolist() == [3.0, 3.0]


def test_saved_and_loaded_it_flags_the_same(detector: AnomalyDetector, tmp_path: Path) -> None:
    detector.save(tmp_path / "kept")
    again = hippodrome.load(tmp_path / "kept")
    assert isinstance(again, AnomalyDetector)
    assert (again.method, again.window, again.horizon, again.contamination) == ("forecast", 16, 2, 0.05)
    pd.testing.assert_frame_equal(again.predict(wave()[0]), detector.predict())
    with pytest.raises(ValueError, match="holds no series"):
        again.predict()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"contamination": 0.7}, r"inside \(0, 0.5\); got 0.7"),
        ({"block": 0}, "1 or more; got 16, 1, 0 and 1"),
        ({"targets": ["c"]}, "a column 'c'"),
    ],
)
def test_refuses_what_cannot_be(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AnomalyDetector(**{**TINY, **options}).fit(wave()[0])
