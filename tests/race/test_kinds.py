"""A tiny race on each kind of task beside text: what is shown of series and of classes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hippodrome import race, runs
from hippodrome.data import open_source
from hippodrome.data.base import Task
from hippodrome.data.tables import open_frame
from hippodrome.data.ts import open_ts
from hippodrome.estimators import Classifier, Forecaster, load
from hippodrome.race.plan import training_values
from hippodrome.race.settings import RaceSettings, parameters_for, rate

SETTINGS = RaceSettings.model_validate(
    {
        "models": "min_gru",
        "budget": "6steps",
        "parameters": 2000,
        "depth": 1,
        "batch_size": 4,
        "validations": 1,
        "baselines": ("gru",),
        "lengths": (),
        "device": "cpu",
    }
)


def series() -> Task:
    hours = np.arange(300)
    frame = pd.DataFrame(
        {
            "date": pd.date_range("2024-01-01", periods=300, freq="h"),
            "load": 10 + np.sin(hours * 2 * np.pi / 24),
            "oil": np.cos(hours / 7),
        }
    )
    return open_frame(frame, look_back=48, horizon=6)


def classes(folder: Path) -> Task:
    rng = np.random.default_rng(0)
    for part in ("TRAIN", "TEST"):
        lines = ["@problemName Waves", "@univariate true", "@classLabel true up down", "@data"]
        for i in range(30):
            values = rng.normal(size=rng.integers(6, 10)) + (1 if i % 2 else -1)
            lines.append(",".join(f"{v:.3f}" for v in values) + (":up" if i % 2 else ":down"))
        (folder / f"Waves_{part}.ts").write_text("\n".join(lines) + "\n")
    return open_ts(folder / "Waves_TRAIN.ts")


def test_series_are_shown_with_bands_beside_the_seasonal_naive(tmp_path: Path) -> None:
    task = series()
    result = race(task, settings=SETTINGS, folder=tmp_path / "r", live=False)
    assert result.metric == "mse"
    assert {"seasonal naive", "repeat last"} <= set(result.naive)
    shown = result.exhibits.forecasts
    assert [e.title.split(",")[0] for e in shown] == ["load", "oil"] * 2
    window = task.test[len(task.test) // 3]
    assert shown[0].truth == pytest.approx(window.future[:, 0].tolist())
    assert shown[0].points["seasonal naive"] == pytest.approx(window.past[24:30, 0].tolist())
    run = runs.load(tmp_path / "r" / "winner")
    outputs, _ = run.model(window.past[None])
    assert shown[0].points[result.winner] == pytest.approx(outputs[0, :, 0, 0].tolist(), rel=1e-5)
    assert shown[0].low[result.winner] == pytest.approx(outputs[0, :, 0, 1].tolist(), rel=1e-5)
    assert "80 %" in shown[0].coverage
    page = result.report.read_text()
    assert "<h2>Forecasts</h2>" in page
    assert "seasonal naive" in page
    assert isinstance(load(tmp_path / "r"), Forecaster)


def test_classes_are_shown_as_a_confusion_matrix(tmp_path: Path) -> None:
    task = classes(tmp_path)
    result = race(task, settings=SETTINGS, folder=tmp_path / "r", live=False)
    assert result.metric == "accuracy"
    assert result.better == "higher"
    shown = result.exhibits.confusion
    assert shown.classes == task.facts["classes"]
    counts = np.array(shown.counts)
    assert counts.sum() == len(task.test) == 30
    best = runs.evaluate(runs.load(tmp_path / "r" / "winner"), task, "test")
    assert counts.trace() / 30 == pytest.approx(best["accuracy"])
    scores = [s.valid.mean for s in result.standings]
    assert scores == sorted(scores, reverse=True)
    assert "Answers of" in result.report.read_text()
    assert isinstance(load(tmp_path / "r"), Classifier)


def test_what_reads_both_ways_races_for_classes_and_windows(tmp_path: Path) -> None:
    ways = SETTINGS.model_copy(update={"models": ("bi-min_gru",), "lengths": (8, 16)})
    result = race(classes(tmp_path), settings=ways, folder=tmp_path / "r", live=False)
    both = next(s for s in result.standings if s.name == "bi-min_gru")
    assert both.status == "finished", both.note
    assert both.state_bytes is both.bytes_per_token is both.step_seconds is None
    assert both.scaling.step_seconds == [None, None]
    assert result.report.exists()
    # A forecaster reads both ways inside its window, which has ended; a target at every step has not.
    ahead = race(series(), settings=ways, folder=tmp_path / "ahead", live=False)
    assert next(s for s in ahead.standings if s.name == "bi-min_gru").status == "finished"
    task = open_source("delay", length=30, lag=3, count=20)
    with pytest.raises(ValueError, match="not causal"):
        race(task, settings=ways, folder=tmp_path / task.kind, live=False)
    assert not (tmp_path / task.kind).exists()


def test_a_regression_is_raced_by_its_squared_error(tmp_path: Path) -> None:
    task = open_source("delay", length=30, lag=3, count=20)
    result = race(task, settings=SETTINGS, folder=tmp_path / "r", live=False)
    assert (result.metric, result.better) == ("mse", "lower")
    assert {"mean", "the input as it is"} <= set(result.naive)
    best = runs.evaluate(runs.load(tmp_path / "r" / "winner"), task, "test")
    assert result.standings[0].test.mean == pytest.approx(best["mse"], rel=1e-5)
    assert "the input 3 steps ago" in result.report.read_text()


def test_the_size_of_the_models_goes_by_the_data(tmp_path: Path) -> None:
    assert training_values(series()) == (len(series().train) + 48) * 2
    assert parameters_for("language", 10) == 100_000
    assert parameters_for("language", 1_003_854) == 200_000
    assert parameters_for("language", 10**9) == 2_000_000
    assert parameters_for("classification", 0) == 40_000


def test_a_hybrid_trains_at_the_rate_of_its_most_careful_layer() -> None:
    assert rate("language", ["mamba2", "mamba2"]) == 2 * rate("language", ["mamba2", "attention"])
    # A newcomer is in no table and takes the rate of the task.
    assert rate("language", ["newcomer"]) == rate("language", ["mamba2"])
