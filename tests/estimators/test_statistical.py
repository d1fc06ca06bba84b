"""Statistical baselines: the library's own backtest, values by hand, short and empty histories, refusals."""

import sys
from pathlib import Path

import numpy as np
import pandas
import pytest

from hippodrome.estimators.backtest import Backtest
from hippodrome.estimators.forecast_report import make
from hippodrome.estimators.forecaster import Forecaster
from hippodrome.estimators.statistical import Statistical, ahead, baseline


def long(rows: int = 60, missing: bool = False) -> pandas.DataFrame:
    numbers = np.random.default_rng(0)
    parts = []
    for key, phase in (("a", 0.0), ("b", 2.0)):
        t = np.arange(rows)
        y = 5 + np.sin(2 * np.pi * t / 7 + phase) + 0.1 * numbers.standard_normal(rows)
        if missing:
            y[[0, 1, 20]] = np.nan
        parts.append(
            pandas.DataFrame({"unique_id": key, "ds": pandas.date_range("2024-01-01", periods=rows), "y": y})
        )
    return pandas.concat(parts, ignore_index=True)


@pytest.mark.parametrize(
    ("name", "column"), [("ets", "AutoETS"), ("arima", "AutoARIMA"), ("naive", "SeasonalNaive")]
)
def test_a_backtest_is_the_library_s(name: str, column: str) -> None:
    statsforecast = pytest.importorskip("statsforecast")
    from statsforecast import models

    df, more = long(), {}
    if name == "arima":
        df, more = df[df["unique_id"] == "b"], {"approximation": True}
    made = getattr(models, column)(season_length=7, **more)
    theirs = statsforecast.StatsForecast([made], freq="D").cross_validation(
        df=df, h=4, n_windows=2, step_size=3, level=[80]
    )
    ours = baseline(name, df, 4, 2, 3, [80])
    assert list(ours.columns) == [
        "unique_id",
        "ds",
        "cutoff",
        "y",
        column,
        f"{column}-lo-80",
        f"{column}-hi-80",
    ]
    keys = ["unique_id", "cutoff", "ds"]
    ours, theirs = (frame.sort_values(keys).reset_index(drop=True) for frame in (ours, theirs))
    for each in (*keys, "y"):
        assert (ours[each] == theirs[each]).all(), each
    for each in ours.columns[4:]:
        np.testing.assert_allclose(ours[each], theirs[each], rtol=1e-6, err_msg=each)


def test_the_naive_forecast_is_the_last_season_and_stands_in_the_rows_of_a_backtest() -> None:
    pytest.importorskip("statsforecast")
    df = long(missing=True)
    found = baseline("naive", df, 5, 3, 2)
    backtest = Backtest(Forecaster(horizon=5), df, 5, 3, 2)
    np.testing.assert_array_equal(found["SeasonalNaive"], backtest.seasonal_naive(7))
    wide = df.pivot(index="ds", columns="unique_id", values="y").reset_index()
    ahead_of_it = Statistical("naive", 9, history=14).predict(wide)
    assert list(ahead_of_it.columns) == ["ds", "a", "b"]
    assert ahead_of_it["ds"][0] == pandas.Timestamp("2024-03-01")
    tail = df[df["unique_id"] == "b"]["y"].to_numpy()[-7:]
    np.testing.assert_array_equal(ahead_of_it["b"], [*tail, *tail[:2]])


def test_history_and_truth_stop_where_they_are_told() -> None:
    pytest.importorskip("statsforecast")
    df = long(100)
    changed = df.copy()
    index = df.groupby("unique_id").cumcount()
    changed.loc[(index < 40) | (index >= 96), "y"] += 50.0
    frames = [
        Statistical("ets", 4, history=50).cross_validation(each, n_windows=1, level=[80, 95])
        for each in (df, changed)
    ]
    assert not np.allclose(frames[0]["y"], frames[1]["y"])
    names = [name for name in frames[0].columns if name.startswith("AutoETS")]
    assert len(names) == 5
    np.testing.assert_array_equal(frames[0][names], frames[1][names])
    low, high = frames[0]["AutoETS-lo-95"], frames[0]["AutoETS-hi-95"]
    assert ((low < frames[0]["AutoETS-lo-80"]) & (frames[0]["AutoETS-hi-80"] < high)).all()


def test_arima_finds_the_decay_of_an_autoregression() -> None:
    pytest.importorskip("statsforecast")
    numbers, y = np.random.default_rng(1), np.zeros(400)
    for t in range(1, 400):
        y[t] = 0.8 * y[t - 1] + numbers.standard_normal()
    found = ahead("arima", y, 30, levels=[80])
    assert found[0, 0] == pytest.approx(0.8 * y[-1], abs=0.25)
    # 80 % of the noise lie within 1.2816 deviations; further ahead errors add up.
    width = found[:, 2] - found[:, 0]
    assert width[0] == pytest.approx(1.2816, rel=0.15)
    assert width[29] > width[4] > 1.1 * width[0]


def test_short_and_constant_histories_repeat_themselves() -> None:
    np.testing.assert_array_equal(ahead("ets", np.array([np.nan, 3.0, 4.0]), 3, 2)[:, 0], [4.0, 4.0, 4.0])
    np.testing.assert_array_equal(ahead("ets", np.array([1.0, 3.0, 4.0, 5.0]), 3, 2)[:, 0], [4.0, 5.0, 4.0])
    assert np.isnan(ahead("arima", np.array([1.0, 2.0]), 2, levels=[80])[:, 1:]).all()
    np.testing.assert_array_equal(ahead("arima", np.full(30, 2.5), 2, 7, [80]), np.full((2, 3), 2.5))
    with pytest.raises(ValueError, match="no value has none"):
        ahead("ets", np.full(5, np.nan), 2)


def test_what_cannot_be_meant_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="did you mean 'arima'"):
        Statistical("arimax")
    with pytest.raises(ValueError, match="1 row or more"):
        Statistical("ets", season=0)
    with pytest.raises(ValueError, match="Take fewer windows"):
        baseline("ets", long(), 12, 9)
    monkeypatch.setitem(sys.modules, "statsforecast", None)
    with pytest.raises(ValueError, match=r"pip install hippodrome\[statistics\]"):
        ahead("ets", np.arange(30.0), 2)


def test_a_report_asks_for_the_library_before_it_trains(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "statsforecast", None)
    stages: list[str] = []
    with pytest.raises(ValueError, match="AutoETS is a model of statsforecast"):
        make(
            Forecaster(horizon=4),
            long(),
            tmp_path / "made",
            name="a",
            windows=2,
            beside=["ets"],
            on_stage=stages.append,
        )
    assert not stages
    assert not list(tmp_path.iterdir())
