"""What the adapters do without the libraries they adapt to: windows of short series, levels, specs."""

import numpy as np
import pytest
from scipy.stats import norm

from hippodrome import config
from hippodrome.estimators.adapters._levels import at_levels
from hippodrome.estimators.adapters._spec import forecasting_spec
from hippodrome.estimators.adapters._windows import default_look_back, window_task


def test_quantiles_of_normal_forecasts_are_exact_at_any_level() -> None:
    mean, size = np.array([[0.0], [3.0]]), np.array([[1.0], [0.25]])
    levels, wanted = [0.1, 0.5, 0.8], [0.01, 0.1, 0.3, 0.5, 0.9, 0.999]
    found = at_levels(levels, mean + size * norm.ppf(levels), wanted)
    np.testing.assert_allclose(found, mean + size * norm.ppf(wanted), atol=1e-12)


def test_levels_that_cannot_be_read_off_are_refused() -> None:
    with pytest.raises(ValueError, match="two learned ones or more"):
        at_levels([0.5], np.zeros((2, 1)), [0.4])
    with pytest.raises(ValueError, match=r"inside \(0, 1\)"):
        at_levels([0.1, 0.9], np.zeros((2, 2)), [1.0])


def test_the_windows_are_all_that_fit_in_front_of_what_chooses() -> None:
    values = np.arange(40.0)[:, None]
    task = window_task([values], None, look_back=6, horizon=3, source="y")
    # 4 rows are held back: windows of 9 rows in the first 36, and of a future inside the last 4.
    assert (len(task.train), len(task.valid)) == (28, 2)
    assert task.valid[0].past[:, 0].tolist() == [30, 31, 32, 33, 34, 35]
    assert task.valid[1].future[:, 0].tolist() == [37, 38, 39]


def test_a_short_series_is_filled_up_and_one_within_the_horizon_left_out() -> None:
    short, long = np.array([[1.0], [2.0], [3.0], [4.0]]), np.arange(3.0)[:, None]
    known = [np.ones((4, 2)), np.zeros((3, 2))]
    task = window_task([short, long], known, look_back=5, horizon=3, source="y")
    assert len(task.train) == 1
    assert task.valid is task.train
    item = task.train[0]
    assert item.past.shape == (5, 3)
    np.testing.assert_array_equal(item.past[:, 0], [np.nan] * 4 + [1])
    assert item.future[:, 0].tolist() == [2, 3, 4]
    assert task.facts["known"] == 2


def test_series_that_teach_nothing_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"a horizon of 5 needs .* longest has 5"):
        window_task([np.zeros((5, 1))], None, look_back=4, horizon=5, source="y")
    with pytest.raises(ValueError, match="variate 2 has none"):
        window_task([np.array([[1.0, np.nan]] * 9)], None, look_back=4, horizon=2, source="y")


@pytest.mark.parametrize(
    ("rows", "horizon", "back"), [(20, 1, 9), (400, 12, 96), (10_000, 96, 384), (10_000, 200, 512), (3, 2, 1)]
)
def test_the_look_back_leaves_room_for_windows(rows: int, horizon: int, back: int) -> None:
    assert default_look_back(rows, horizon) == back


def test_a_recipe_brings_its_own_width_depth_and_settings() -> None:
    facts = {"channels": 3, "look_back": 32, "horizon": 4, "quantiles": []}
    spec = forecasting_spec("tsm2_etth1", facts, None, None, 0.1)
    model = config.build(spec)
    assert model.backbone.variates == 3
    assert (model.channels, model.look_back, model.horizon) == (3, 32, 4)
    small = config.build(forecasting_spec("min_gru", facts, 8, 3, 0.0))
    assert small.backbone.d_model == 8
    assert len(small.backbone.blocks) == 3
    with pytest.raises(ValueError, match="no_such_model"):
        forecasting_spec("no_such_model", facts, None, None, 0.1)


def test_a_recipe_that_reads_the_series_alone_is_told_of_no_covariates() -> None:
    facts = {"channels": 2, "look_back": 96, "horizon": 4, "quantiles": [], "observed": 0, "static": 0}
    model = config.build(forecasting_spec("smetimes", {**facts, "known": 0}, 32, 1, 0.1))
    assert (model.channels, model.segment) == (2, 96)
    with pytest.raises(ValueError, match="smetimes reads the series alone; got covariates"):
        forecasting_spec("smetimes", {**facts, "known": 1}, 32, 1, 0.1)
