"""Our models in the hands of neuralforecast, in an environment that has it (``make adapters``)."""

from typing import Any

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.adapters
neuralforecast = pytest.importorskip(
    "neuralforecast", reason="neuralforecast is not installed: make adapters"
)

import pandas as pd  # noqa: E402
from neuralforecast import NeuralForecast  # noqa: E402
from neuralforecast.losses.pytorch import (  # noqa: E402
    GMM,
    MSE,
    DistributionLoss,
    HuberMQLoss,
    MQLoss,
)

from hippodrome.estimators.adapters.neuralforecast import neuralforecast_model  # noqa: E402

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
SMALL: dict[str, Any] = {"h": 4, "input_size": 12, "width": 8, "depth": 1, "max_steps": 2, **QUIET}
ROWS, IDS = 60, ["a", "b", "c"]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Three series of 60 hours with a covariate that is known ahead and one that is not."""
    numbers = np.random.default_rng(0)
    stamps = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    parts = []
    for i, key in enumerate(IDS):
        y = 5.0 * i + np.sin(np.arange(ROWS) / 3) + 0.1 * numbers.normal(size=ROWS)
        known, seen = numbers.normal(size=(2, ROWS))
        parts.append(pd.DataFrame({"unique_id": key, "ds": stamps, "y": y, "known": known, "seen": seen}))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def ahead(frame: pd.DataFrame) -> pd.DataFrame:
    """The known covariate of the four hours after."""
    stamps = pd.date_range(frame.ds.max(), periods=5, freq="h")[1:]
    numbers = np.random.default_rng(1)
    parts = [pd.DataFrame({"unique_id": k, "ds": stamps, "known": numbers.normal(size=4)}) for k in IDS]
    return pd.concat(parts, ignore_index=True)


STATIC = pd.DataFrame({"unique_id": IDS, "size": [1.0, 2.0, 4.0]})


def wide(frame: pd.DataFrame, column: str = "y") -> torch.Tensor:
    """A column as (3, t)."""
    return torch.tensor(np.stack([frame[column][frame.unique_id == k] for k in IDS]), dtype=torch.float32)


def fitted(frame: pd.DataFrame, model: Any, **more: Any) -> Any:
    """A NeuralForecast of one model that has learned, and that model."""
    forecast = NeuralForecast(models=[model], freq="h")
    forecast.fit(frame, **more)
    return forecast, forecast.models[0]


@pytest.mark.parametrize("together", [False, True])
def test_its_forecast_is_that_of_our_model_on_the_last_window(frame: pd.DataFrame, together: bool) -> None:
    plain = frame[["unique_id", "ds", "y"]]
    made = neuralforecast_model("s4d", **SMALL, n_series=3 if together else None)
    forecast, model = fitted(plain, made)
    found = forecast.predict()
    window = wide(plain)[:, -12:]
    inputs = window.T[None] if together else window[..., None]
    with torch.no_grad():
        outputs, _ = model.network.eval()(inputs)
    expected = outputs[0, ..., 0].T if together else outputs[..., 0, 0]
    np.testing.assert_allclose(found["s4d"], expected.flatten().numpy(), rtol=1e-5)


@pytest.mark.parametrize("together", [False, True])
def test_every_covariate_reaches_its_place(frame: pd.DataFrame, ahead: pd.DataFrame, together: bool) -> None:
    lists = {"futr_exog_list": ["known"], "hist_exog_list": ["seen"], "stat_exog_list": ["size"]}
    made = neuralforecast_model("s4d", **SMALL, **lists, n_series=3 if together else None)
    forecast, model = fitted(frame, made, static_df=STATIC)
    found = forecast.predict(futr_df=ahead)
    parts = [wide(frame, name)[:, -12:] for name in ("y", "seen", "known")]
    future = torch.tensor(ahead.known.to_numpy().reshape(3, 4), dtype=torch.float32)
    size = torch.tensor(STATIC["size"].to_numpy(), dtype=torch.float32)
    if together:
        inputs = torch.cat([part.T for part in parts], 1)[None]
        told = {"known": future.T[None], "static": size[None]}
    else:
        inputs, told = torch.stack(parts, -1), {"known": future[..., None], "static": size[:, None]}
    with torch.no_grad():
        outputs, _ = model.network.eval()(inputs, **told)
    expected = outputs[0, ..., 0].T if together else outputs[..., 0, 0]
    np.testing.assert_allclose(found["s4d"].to_numpy().reshape(3, 4), expected.numpy(), rtol=1e-5)


def test_quantiles_of_a_loss_come_in_its_order_and_do_not_cross(frame: pd.DataFrame) -> None:
    plain = frame[["unique_id", "ds", "y"]]
    made = neuralforecast_model("min_gru", **SMALL, loss=MQLoss(level=[50, 90]), alias="m")
    forecast, _ = fitted(plain, made)
    found = forecast.predict()
    columns = ["m-lo-90", "m-lo-50", "m-median", "m-hi-50", "m-hi-90"]
    assert (found[columns].diff(axis=1).iloc[:, 1:] > 0).all(axis=None)


def test_the_point_learns_from_a_loss_of_quantiles(frame: pd.DataFrame) -> None:
    made = neuralforecast_model("s4d", **SMALL, loss=HuberMQLoss(level=[80]))
    batch = {"insample_y": torch.randn(2, 12, 1), "insample_mask": torch.ones(2, 12, 1)}
    batch |= dict.fromkeys(("hist_exog", "futr_exog", "stat_exog"))
    made(batch).sum().backward()
    assert made.network.point.weight.grad.abs().sum() > 0


def test_parameters_of_a_distribution_lie_series_by_series(frame: pd.DataFrame) -> None:
    plain = frame[["unique_id", "ds", "y"]]
    losses = [DistributionLoss("Normal", level=[80]), GMM(n_components=2, level=[80])]
    for loss in losses:
        made = neuralforecast_model("s4d", **SMALL, loss=loss, n_series=3, alias="d")
        with torch.no_grad():  # location (of every component) the point, everything else nothing
            made.outputs_of.weight.zero_()
            made.outputs_of.bias.zero_()
            made.outputs_of.weight[: made.outputs_of.out_features // 2, 0] = 1
        batch = {"insample_y": torch.randn(2, 12, 3), "insample_mask": torch.ones(2, 12, 3)}
        batch |= dict.fromkeys(("hist_exog", "futr_exog", "stat_exog"))
        made.eval()
        location = loss.domain_map(made(batch))[0].reshape(2, 4, 3, -1)
        point = made.network(batch["insample_y"])[0][..., :1]
        torch.testing.assert_close(location, point.expand_as(location))
        forecast, _ = fitted(plain, made)
        assert not forecast.predict().isna().any(axis=None)


def test_what_is_not_available_is_missing_and_no_zero() -> None:
    made = neuralforecast_model("s4d", **SMALL).eval()
    values, seen = torch.randn(2, 12, 1), torch.ones(2, 12, 1)
    values[:, :5], seen[:, :5] = 0.0, 0.0
    batch = {"insample_y": values, "insample_mask": seen}
    batch |= dict.fromkeys(("hist_exog", "futr_exog", "stat_exog"))
    holes = values.masked_fill(seen == 0, torch.nan)
    torch.testing.assert_close(made(batch), made.network(holes)[0][..., 0])
    assert not torch.allclose(made(batch), made.network(values)[0][..., 0])


def test_it_learns_in_a_cross_validation_and_beats_the_last_value(frame: pd.DataFrame) -> None:
    plain = frame[["unique_id", "ds", "y"]]
    settings = {**SMALL, "max_steps": 60, "learning_rate": 1e-2, "windows_batch_size": 32}
    forecast = NeuralForecast(models=[neuralforecast_model("s4d", **settings, loss=MSE())], freq="h")
    found = forecast.cross_validation(plain, n_windows=3, step_size=4)
    assert len(found) == 3 * 3 * 4
    last = plain.set_index(["unique_id", "ds"]).y
    before = last.loc[list(zip(found.unique_id, found.cutoff, strict=True))].to_numpy()
    naive = np.square(found.y - before).mean()
    assert np.square(found.y - found["s4d"]).mean() < 0.5 * naive


def test_it_is_saved_and_loaded(frame: pd.DataFrame, tmp_path: Any) -> None:
    plain = frame[["unique_id", "ds", "y"]]
    models = [
        neuralforecast_model("s4d", **SMALL),
        neuralforecast_model("s4d", **SMALL, loss=MQLoss(level=[80]), n_series=3, alias="bands"),
    ]
    forecast = NeuralForecast(models=models, freq="h")
    forecast.fit(plain)
    forecast.save(str(tmp_path / "saved"))
    again = NeuralForecast.load(str(tmp_path / "saved"))
    pd.testing.assert_frame_equal(again.predict(plain), forecast.predict(plain), check_like=True)


def test_mixers_learn_at_the_rates_they_ask_for() -> None:
    made = neuralforecast_model("s4d", **SMALL, learning_rate=1e-2)
    optimizer = made.configure_optimizers()["optimizer"]
    slow = [group for group in optimizer.param_groups if group["lr"] < 1e-2]
    asked = made.network.parameter_groups()
    assert slow
    assert {id(p) for g in slow for p in g["params"]} == {
        id(p) for g in asked for p in g.parameters if g.lr_factor < 1 or (g.max_lr or 1) < 1e-2
    }
    counted = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert counted == sum(p.numel() for p in made.parameters() if p.requires_grad)
    plain = neuralforecast_model("s4d", **SMALL, optimizer=torch.optim.SGD)
    assert isinstance(plain.configure_optimizers()["optimizer"], torch.optim.SGD)


def test_recipes_are_models_of_it_too(frame: pd.DataFrame) -> None:
    plain = frame[["unique_id", "ds", "y"]]
    settings = {**SMALL, "input_size": 32, "width": None, "depth": None, "max_steps": 1}
    forecast, model = fitted(plain, neuralforecast_model("tsm2_etth1", **settings, n_series=3))
    assert model.network.backbone.variates == 3
    assert list(forecast.predict().columns) == ["unique_id", "ds", "tsm2_etth1"]


def test_a_model_that_is_not_known_is_told() -> None:
    with pytest.raises(ValueError, match="no_such_model"):
        neuralforecast_model("no_such_model", **SMALL)
