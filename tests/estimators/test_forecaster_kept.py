"""What a forecaster keeps apart, keeps, and gives back: statistics, ids, bands, arguments, whole folders."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.estimators.test_forecaster import AHEAD, PAST, TINY

from hippodrome.data._panel import Reading, read_panel
from hippodrome.estimators import Forecaster, load


def test_no_statistic_is_taken_of_what_weights_and_bands_are_chosen_by() -> None:
    """Of windows that are forecast to learn how far off forecasts are, as of the future."""
    later = PAST["ds"] >= PAST["ds"].unique()[-7]  # 15 % of 52 rows
    other = PAST.assign(y=PAST["y"].where(~later, -1e4))
    for scaler in ("local", "global"):
        first, second = (
            Forecaster(horizon=4, scaler=scaler, validation=0.15, **TINY)._task(
                read_panel(frame, Reading()), 16, 4, scaler
            )
            for frame in (PAST, other)
        )
        assert first.facts == second.facts
        assert len(first.train) == len(second.train) > 0
        for one, two in zip(first.train, second.train, strict=True):
            assert torch.equal(one.past, two.past)
            assert torch.equal(one.future, two.future)


def test_a_loaded_forecaster_has_the_same_bands_and_trains_the_same_way(tmp_path: Path) -> None:
    asked = {"intervals": "conformal", "validation": 0.4, "settings": {"patch": 4}, "dropout": 0.0}
    made = Forecaster(horizon=4, **asked, **TINY).fit(PAST)
    again = load(made.save(tmp_path / "run"))
    levels = [50, 80]
    pd.testing.assert_frame_equal(
        again.predict(PAST, level=levels), made.predict(level=levels), rtol=0, atol=0
    )
    assert {name: again.get_params()[name] for name in asked} == asked


def test_ids_keep_their_kind() -> None:
    data = PAST.assign(unique_id=PAST["unique_id"].map({"north": 3, "south": 1, "west": 2}))
    made = Forecaster(horizon=4, **TINY).fit(data)
    found = made.predict()
    assert found["unique_id"].tolist() == [3] * 4 + [1] * 4 + [2] * 4
    assert found["unique_id"].dtype == np.int64
    stream = made.stream(series=1)
    assert stream.forecast()["unique_id"].tolist() == [1] * 4


def test_rows_ahead_of_series_that_are_not_forecast_are_passed_over() -> None:
    made = Forecaster(horizon=4, known=["price"], **TINY).fit(PAST)
    one = PAST[PAST["unique_id"] == "south"]
    alone = made.predict(one, X_df=AHEAD[AHEAD["unique_id"] == "south"])
    pd.testing.assert_frame_equal(made.predict(one, X_df=AHEAD), alone)


def test_irregular_stamps_ahead_may_be_fractions_where_those_before_are_whole() -> None:
    data = pd.DataFrame(
        {"unique_id": "a", "ds": np.cumsum(np.tile([1, 2, 1, 3], 10)), "y": 1.0 + np.arange(40)}
    )
    made = Forecaster(horizon=2, irregular=True, **{**TINY, "model": "s4d"}).fit(data)
    ahead = pd.DataFrame({"unique_id": "a", "ds": [70.5, 72.25]})
    assert made.predict(X_df=ahead)["ds"].tolist() == [70.5, 72.25]


def test_what_is_no_frame_and_what_leaves_no_room_for_scores_is_told_before_training() -> None:
    short = PAST.groupby("unique_id").head(8)
    with pytest.raises(ValueError, match="series of 9 rows or more; there is no such series"):
        Forecaster(horizon=4, intervals="conformal", **TINY).fit(short)
    with pytest.raises(ValueError, match="expected a pandas data frame; got a list"):
        read_panel([1, 2], Reading())


def test_a_copy_that_is_cut_off_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def full(source: str, target: str, **_: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("no space left")

    made = Forecaster(horizon=4, **TINY).fit(PAST)
    monkeypatch.setattr(shutil.copytree, "__defaults__", (False, None, full, False, False))
    with pytest.raises(OSError, match="no space left"):
        made.save(tmp_path / "run")
    assert not list(tmp_path.iterdir())
