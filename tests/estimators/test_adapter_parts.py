"""What the adapters do without the libraries they adapt to: levels and specs."""

import numpy as np
import pytest
from scipy.stats import norm

from hippodrome import config
from hippodrome.estimators.adapters._levels import at_levels
from hippodrome.estimators.adapters._spec import forecasting_spec


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
