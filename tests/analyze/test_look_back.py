"""Memory over the look-back: a linear forecaster's is its weights, and no step is read that is not there."""

import pytest
import torch

from hippodrome.analyze.look_back import look_back_chart, look_back_memory
from hippodrome.models.forecasting import ForecastingModel
from hippodrome.shapes import SeriesBatch


def linear(scale: list[float]) -> ForecastingModel:
    torch.manual_seed(0)
    model = ForecastingModel(
        None, 2, 12, 8, (), scale=scale, normalization="none", shortcut=1, affine=False
    ).double()
    with torch.no_grad():
        model.shortcut.trend.weight.normal_()
        model.shortcut.trend.weight[:, :4] = 0  # the oldest steps are not read
        model.shortcut.trend.weight[:2, 4:8] = 0  # nor, for the nearest part of the horizon, some others
    return model


def windows(n: int = 1024) -> SeriesBatch:
    past = torch.randn(n, 12, 2, dtype=torch.float64) * torch.tensor([1.0, 50.0])
    return SeriesBatch(past, past[:, :8])


def test_the_memory_of_a_linear_forecaster_is_its_weights() -> None:
    model = linear([1.0, 50.0])
    found = look_back_memory(model, windows())
    weight = model.shortcut.trend.weight.detach()
    for told, rows in ((found.whole, weight), (found.near, weight[:2]), (found.far, weight[-2:])):
        # Each value depends on its own variate alone, whatever the scales.
        expected = rows.square().mean(0).sqrt()
        torch.testing.assert_close(torch.tensor(told, dtype=torch.float64), expected, rtol=0.1, atol=0)
    assert found.near[:8] == (0.0,) * 8
    assert found.whole[:4] == (0.0,) * 4
    total = torch.tensor(found.whole).flip(0).cumsum(0)
    assert found.reach == int((total < 0.95 * total[-1]).sum()) + 1
    assert found.reach <= 8


def test_a_missing_value_has_no_influence_and_the_model_stays_as_it_was() -> None:
    model = linear([1.0, 1.0]).train()
    batch = windows(8)
    past = batch.past.clone()
    past[:, 6] = float("nan")
    found = look_back_memory(model, SeriesBatch(past, batch.future))
    assert found.whole[6] == 0
    assert found.whole[7] > 0
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_a_forecast_of_the_level_depends_on_all_steps_alike() -> None:
    model = ForecastingModel(None, 1, 10, 4, (), normalization="level", shortcut=1).double()
    with torch.no_grad():
        model.shortcut.trend.weight.zero_()
        model.shortcut.trend.bias.zero_()
    past = torch.randn(16, 10, 1, dtype=torch.float64)
    found = look_back_memory(model, SeriesBatch(past, past[:, :4]), probes=1)
    assert max(found.whole) == pytest.approx(min(found.whole))
    assert found.reach == 10


def test_the_chart_is_drawn_and_says_how_far_it_reaches() -> None:
    found = look_back_memory(linear([1.0, 1.0]), windows(4))
    chart = look_back_chart(found, found, 3)
    assert f"last {found.reach} steps hold 95 %" in chart.note
    text = chart.svg()
    assert "window 3" in text
    assert "steps before the forecast" in text


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        look_back_memory(linear([1.0, 1.0]), windows(2), share=1.0)
