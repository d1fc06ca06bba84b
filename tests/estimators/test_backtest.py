"""Backtests: windows where they should be, nothing learned from what comes later, errors by hand."""

import numpy as np
import pandas as pd
import pytest

from hippodrome.estimators import Forecaster, load
from hippodrome.estimators.backtest import Backtest, metrics

TINY = {"width": 8, "depth": 1, "budget": "3steps", "device": "cpu", "model": "min_gru"}
HOURS = pd.date_range("2024-01-01", periods=120, freq="h")


def frame(rows: int = 120) -> pd.DataFrame:
    waves = {name: np.sin(np.arange(rows) / 3 + i) + i for i, name in enumerate(["north", "south"])}
    parts = [pd.DataFrame({"unique_id": k, "ds": HOURS[:rows], "y": wave}) for k, wave in waves.items()]
    return pd.concat(parts, ignore_index=True)


def forecaster(**options) -> Forecaster:
    return Forecaster(horizon=6, look_back=16, **{**TINY, **options})


def test_windows_lie_at_the_end_and_carry_what_came() -> None:
    data = frame()
    data = data.drop(data.index[:20])  # north begins later
    found = forecaster().cross_validation(data, h=4, n_windows=3, step_size=5)
    bands = ["min_gru", "min_gru-lo-80", "min_gru-median", "min_gru-hi-80"]
    assert list(found.columns) == ["unique_id", "ds", "cutoff", "y", *bands]
    assert len(found) == 3 * 2 * 4
    north = found[found["unique_id"] == "north"]
    assert list(north["cutoff"].unique()) == [HOURS[105], HOURS[110], HOURS[115]]
    assert (north["ds"] == north["cutoff"] + pd.to_timedelta(np.tile(np.arange(1, 5), 3), "h")).all()
    joined = found.merge(data, on=["unique_id", "ds"], suffixes=("", "_given"))
    assert len(joined) == len(found)
    assert (joined["y"] == joined["y_given"]).all()


@pytest.mark.parametrize("refit", [False, "2steps"])
def test_nothing_that_comes_after_a_cutoff_changes_what_was_said_at_it(refit: bool | str) -> None:
    options = {"intervals": "conformal", "validation": 0.3, "scaler": "local"}
    whole = frame()
    found = forecaster(**options).cross_validation(whole, n_windows=2, refit=refit, level=[60])
    for changed in range(2):
        later = whole["ds"] > found["cutoff"].unique()[changed]
        other = whole.assign(y=whole["y"].where(~later, 50.0))
        again = forecaster(**options).cross_validation(other, n_windows=2, refit=refit, level=[60])
        before = found["cutoff"] <= found["cutoff"].unique()[changed]
        columns = [name for name in found.columns if name != "y"]
        pd.testing.assert_frame_equal(found.loc[before, columns], again.loc[before, columns])
        assert not found.loc[~before, "min_gru"].equals(again.loc[~before, "min_gru"]) or changed == 1


def test_a_wide_frame_with_covariates_gives_a_series_for_each_variate() -> None:
    rows = 100
    data = pd.DataFrame({"date": HOURS[:rows], "load": np.arange(rows) / 10, "oil": np.cos(np.arange(rows))})
    data["warm"] = np.sin(np.arange(rows) / 5)
    made = forecaster(known=["warm"], calendar=True)
    found = made.cross_validation(data, n_windows=2, level=[80])
    assert list(found["unique_id"].unique()) == ["load", "oil"]
    assert len(found) == 2 * 2 * 6
    truth = data.set_index("date")
    assert all(truth.loc[row.ds, row.unique_id] == row.y for row in found.itertuples())
    # The second window again by hand, after a training on the same rows.
    made.fit(data[: rows - 12])
    told = made.predict(data[: rows - 6], X_df=data.loc[rows - 6 :, ["date", "warm"]])
    last = found[found["cutoff"] == HOURS[rows - 7]]
    np.testing.assert_allclose(last["min_gru-hi-80"], np.r_[told["load-hi-80"], told["oil-hi-80"]])


def test_errors_are_those_computed_by_hand() -> None:
    data = frame(60)
    backtest = Backtest(forecaster(), data, n_windows=2)
    found = backtest.run(level=[80])
    found["SeasonalNaive"] = backtest.seasonal_naive(6)
    north = found[(found["unique_id"] == "north") & (found["cutoff"] == HOURS[53])]
    wave = data["y"].to_numpy()[:60]
    np.testing.assert_array_equal(north["SeasonalNaive"], wave[48:54])
    train = backtest.past(0)
    told = metrics(found, ["min_gru", "SeasonalNaive"], train, 6).set_index(["unique_id", "metric"])
    mine = found[found["unique_id"] == "south"]
    error = mine["y"] - mine["min_gru"]
    own = train.loc[train["unique_id"] == "south", "y"].to_numpy()
    low, high = mine["min_gru-lo-80"], mine["min_gru-hi-80"]
    pinball = [
        np.maximum(q * (mine["y"] - e), (q - 1) * (mine["y"] - e)) for q, e in ((0.1, low), (0.9, high))
    ]
    expected = {
        "mae": error.abs().mean(),
        "mse": error.pow(2).mean(),
        "rmse": error.pow(2).mean() ** 0.5,
        "smape": (error.abs() / (mine["y"].abs() + mine["min_gru"].abs())).mean(),
        "mase": error.abs().mean() / np.abs(own[6:] - own[:-6]).mean(),
        "coverage-80": ((mine["y"] >= low) & (mine["y"] <= high)).mean(),
        "pinball": np.mean(pinball),
    }
    assert list(told.loc["south"].index) == list(expected)
    np.testing.assert_allclose(told.loc["south", "min_gru"], list(expected.values()))
    both = told.loc[["north", "south"], "SeasonalNaive"].unstack()["mae"].mean()
    assert told.loc[("mean", "mae"), "SeasonalNaive"] == pytest.approx(both)
    assert np.isnan(told.loc[("mean", "coverage-80"), "SeasonalNaive"])


def test_windows_that_cannot_be_are_refused() -> None:
    for options, words in (
        ({"h": 7}, "1 to 6 steps"),
        ({"n_windows": 0}, "1 window or more"),
        ({"n_windows": 20}, "take 120 rows at the end of a series and leave 0"),
        ({"n_windows": 19}, "a horizon of 6 is learned from 7"),
    ):
        with pytest.raises(ValueError, match=words):
            forecaster().cross_validation(frame(), **options)


def test_conformal_bands_are_kept_with_the_run_and_reach_any_level(tmp_path) -> None:
    data = frame()
    made = forecaster(intervals="conformal", validation=0.4).fit(data)
    found = made.predict(level=[50, 92.5])
    names = [f"min_gru{end}" for end in ("", "-lo-92.5", "-lo-50", "-median", "-hi-50", "-hi-92.5")]
    assert list(found.columns[2:]) == names
    assert (found["min_gru-hi-92.5"] > found["min_gru-hi-50"]).all()
    again = load(made.save(tmp_path / "run"))
    assert again.intervals == "conformal"
    pd.testing.assert_frame_equal(again.predict(data, level=[50, 92.5]), found)
    assert list(made.predict().columns[2:]) == ["min_gru", "min_gru-lo-80", "min_gru-median", "min_gru-hi-80"]
    with pytest.raises(ValueError, match="as far as the horizon"):
        made.predict(h=7)
    with pytest.raises(ValueError, match="needs 999 windows"):
        made.predict(level=[99.9])
    with pytest.raises(ValueError, match="'quantiles' or 'conformal'"):
        forecaster().set_params(intervals="bands").fit(data)
    with pytest.raises(ValueError, match="validation=0"):
        forecaster(intervals="conformal", validation=0.0).fit(data)


def test_rows_that_are_absent_at_a_cutoff_do_not_shift_its_forecast() -> None:
    """An absent row that is filled in is the row of a missing value."""
    data = frame()
    absent = data["ds"].isin([HOURS[107], HOURS[113]])
    given = data.assign(y=data["y"].where(~absent))
    whole = forecaster(gaps="fill").cross_validation(given, n_windows=2)
    gaps = forecaster(gaps="fill").cross_validation(data[~absent], n_windows=2)
    assert HOURS[113] in set(whole["cutoff"])
    second = whole["cutoff"] == HOURS[113]
    # The first cutoff is where the training ends, which has a row less to learn from.
    assert (gaps.loc[second, "ds"] == whole.loc[second, "ds"]).all()
    made = Backtest(forecaster(gaps="fill"), data[~absent], n_windows=2)
    found = made.run()
    told = made.trained.predict(given[given["ds"] <= HOURS[113]])
    np.testing.assert_array_equal(found.loc[second, "min_gru"], told["min_gru"])
    assert (found.loc[second, "ds"].to_numpy() == told["ds"].to_numpy()).all()


def test_series_too_short_for_a_window_stay_out_of_it_and_names_keep_their_kind() -> None:
    data = pd.concat(
        [
            pd.DataFrame({"unique_id": key, "ds": HOURS[:n], "y": np.sin(np.arange(n)), "x": np.arange(n)})
            for key, n in ((7, 90), (8, 5), (9, 4))
        ]
    )
    found = forecaster(known=["x"]).cross_validation(data, n_windows=2)
    assert found["unique_id"].tolist() == [7] * 12
    assert found["unique_id"].dtype == np.int64
    assert len(found.merge(data, on=["unique_id", "ds"])) == 12
