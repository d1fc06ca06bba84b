"""The imputer: holes and nothing else are filled, rows keep their places, scores are of hidden cells."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import hippodrome
from hippodrome.data.imputation import imputation_task, read_grids
from hippodrome.estimators import Imputer
from hippodrome.estimators._cells import filled

TINY = {"width": 8, "depth": 1, "budget": "3steps", "device": "cpu", "model": "bi-min_gru", "window": 24}


def wide(rows: int = 90) -> pd.DataFrame:
    t = np.arange(rows)
    frame = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=rows, freq="h")})
    frame["load"], frame["heat"] = np.sin(t / 3), 5 + 2 * np.cos(t / 3)
    frame.loc[20:23, "load"] = frame.loc[50, "heat"] = np.nan
    frame["count"] = t
    return frame


def long() -> pd.DataFrame:
    t = np.arange(40)
    parts = [pd.DataFrame({"unique_id": key, "ds": t, "y": np.sin(t / 2) + i}) for i, key in enumerate("ab")]
    frame = pd.concat(parts).sort_values("ds", kind="stable").reset_index(drop=True)
    frame.loc[[10, 31], "y"] = np.nan
    return frame


@pytest.fixture(scope="module")
def imputer() -> Imputer:
    return Imputer(**TINY).fit(wide())


def test_holes_are_filled_and_all_else_is_as_it_was(imputer: Imputer) -> None:
    frame = wide()
    found = imputer.transform(intervals=True)
    assert list(frame.columns) == list(found.columns[:4])
    hole = frame.isna()
    assert int(hole.to_numpy().sum()) == 5
    assert not found[frame.columns].isna().any().any()
    pd.testing.assert_frame_equal(found[frame.columns].where(~hole), frame, check_dtype=False)
    assert found["count"].dtype == frame["count"].dtype
    assert "count-lo-80" not in found.columns
    assert (found["load-lo-80"].notna() == hole["load"]).all()
    inside = found[hole["load"]]
    assert (inside["load-lo-80"] <= inside["load-hi-80"]).all()
    assert frame["load"].isna().sum() == 4, "the frame that was given is changed"


def test_list_of_holes_says_the_same_as_the_frame(imputer: Imputer) -> None:
    found, holes = imputer.transform(), imputer.holes()
    assert len(holes) == 5
    for row in holes.itertuples():
        assert found.loc[row.row - 1, row.column] == row.value
        assert found.loc[row.row - 1, "date"] == row.ds


def test_rows_of_a_long_frame_keep_their_places() -> None:
    frame = long()
    imputer = Imputer(**TINY).fit(frame)
    found = imputer.transform()
    assert (found[["unique_id", "ds"]] == frame[["unique_id", "ds"]]).all().all()
    known = frame["y"].notna()
    assert (found["y"][known] == frame["y"][known]).all()
    assert found["y"].notna().all()
    assert imputer.holes()[["row", "unique_id"]].to_numpy().tolist() == [[11, "a"], [32, "b"]]


def test_a_frame_without_holes_comes_back_as_it_is(imputer: Imputer) -> None:
    frame = wide().fillna(1.0)
    pd.testing.assert_frame_equal(imputer.transform(frame), frame)


def test_absent_rows_are_put_in_where_that_is_asked() -> None:
    frame = wide().drop(index=[30, 31, 60]).reset_index(drop=True)
    with pytest.raises(ValueError, match="one step throughout"):
        Imputer(**TINY).fit(frame)
    found = Imputer(gaps="fill", **TINY).fit_transform(frame)
    assert found["date"].tolist() == wide()["date"].tolist()
    assert not found.isna().any().any()
    kept = found.drop(index=[30, 31, 60]).reset_index(drop=True)
    known = frame.notna()
    assert ((kept == frame) | ~known).all().all()
    short = long().drop(index=[20])
    found = Imputer(gaps="fill", **TINY).fit_transform(short)
    assert found["unique_id"].tolist() == ["a"] * 40 + ["b"] * 40
    assert found["ds"].tolist() == [*range(40)] * 2
    assert not found.isna().any().any()


def test_time_that_passed_reaches_the_guess() -> None:
    frame = long()[lambda f: f["unique_id"] == "a"].drop(columns="unique_id").drop(index=[24, 26, 28])
    imputer = Imputer(irregular=True, **TINY).fit(frame)
    model = imputer.run_.model
    for layer in (model.point, model.spreads):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    found = imputer.transform()
    wanted = frame.set_index("ds")["y"].interpolate(method="index")
    np.testing.assert_allclose(found["y"], wanted, rtol=1e-4, atol=1e-5)


def test_scores_are_of_the_cells_that_training_did_not_see(imputer: Imputer) -> None:
    found = imputer.score()
    assert list(found) == ["model", "linear interpolation", "last value carried", "mean"]
    task = imputation_task(
        read_grids(wide()), length=24, split=None, hide="mixed", mask_rate=0.25, eval_rate=None, span=None,
        seed=0,
    )  # fmt: skip
    (one,) = task.test.series
    asked = ~np.isnan(one.asked)
    said = filled(imputer.run_.model, one.values, 24)[..., 0]
    scale, location = np.array(task.facts["scale"]), np.array(task.facts["location"])
    error = ((said - one.asked) / scale)[asked]
    assert found["model"]["mse"] == pytest.approx(np.square(error).mean(), rel=1e-5)
    error = ((location - one.asked) / scale)[asked]
    assert found["mean"]["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    guess = pd.DataFrame(one.values).interpolate().bfill().ffill().fillna(pd.Series(location)).to_numpy()
    error = ((guess - one.asked) / scale)[asked]
    assert found["linear interpolation"]["mse"] == pytest.approx(np.square(error).mean(), rel=1e-5)


def test_windows_that_overlap_are_weighted_and_add_up() -> None:
    class Telling:
        """A model that says where in its window a cell stands."""

        quantiles = ()

        def __init__(self, causal: bool) -> None:
            self.backbone = type("Backbone", (), {"causal": causal})
            self.parameters = lambda: iter([torch.zeros(1)])

        def __call__(self, batch, dt=None):
            return torch.arange(batch.shape[1]).float()[None, :, None, None].expand(len(batch), -1, 1, 1), ()

    values = np.zeros((6, 1))
    both = filled(Telling(False), values, 4)[:, 0, 0]
    # Windows start at 0 and 2; step 2 is third (weight 2) of one and first (weight 1) of the other.
    assert both.tolist() == pytest.approx([0, 1, (2 * 2 + 1 * 0) / 3, (1 * 3 + 2 * 1) / 3, 2, 3])
    ahead = filled(Telling(True), values, 4)[:, 0, 0]
    assert ahead.tolist() == pytest.approx([0, 1, (3 * 2 + 1 * 0) / 4, (4 * 3 + 2 * 1) / 6, 2, 3])


def test_saved_and_loaded_it_fills_the_same(imputer: Imputer, tmp_path: Path) -> None:
    imputer.save(tmp_path / "kept")
    again = hippodrome.load(tmp_path / "kept")
    assert isinstance(again, Imputer)
    assert (again.model, again.window, again.hide) == ("bi-min_gru", 24, "mixed")
    pd.testing.assert_frame_equal(again.transform(wide()), imputer.transform())
    assert again.score(wide())["model"] == imputer.score()["model"]
    with pytest.raises(ValueError, match="holds no series"):
        again.transform()
    with pytest.raises(ValueError, match="learned 3 variates, and the frame has 1"):
        again.transform(long())


def test_learns_what_linear_interpolation_cannot() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(300)
    wave = np.sin(2 * np.pi * t / 4 + 1) + 0.05 * rng.normal(size=300)
    frame = pd.DataFrame({"ds": t, "a": wave, "b": -wave})
    options = {**TINY, "budget": "60steps", "width": 16, "lr": 1e-2, "hide": "points"}
    found = Imputer(**options).fit(frame).score()
    assert found["model"]["mse"] < 0.3 * found["linear interpolation"]["mse"]
