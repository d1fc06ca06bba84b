"""Forecasts by a closed loop: the contract, an exact autoregression, the three parts of the loss."""

import pytest
import torch
from torch import nn

from hippodrome.backbones.closed_loop import ClosedLoop
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.space_time import SpaceTime
from hippodrome.models.forecasting import ForecastingModel
from hippodrome.shapes import SeriesBatch
from hippodrome.testing.models import check_model
from hippodrome.testing.ops import close


def example(**options: object) -> ForecastingModel:
    torch.manual_seed(0)
    given = {"channels": 2, "look_back": 11, "horizon": 5, **options}
    return ForecastingModel(ClosedLoop.example(), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("normalization", ["window", "none"])
def test_contract(normalization: str) -> None:
    model = example(location=[1.0, -2.0], scale=[2.0, 0.5], normalization=normalization)
    assert (model.first_chunk, model.chunk) == (11, 1)
    check_model(model, ForecastingModel.example_batch())


def by_hand(phi: list[float]) -> ForecastingModel:
    """Two channels, u and -u, whose companion systems are the autoregression; gelu(y) - gelu(-y) is y."""
    decoder = SpaceTime(2, len(phi), normalize=False, feedback=True, linear=False)
    model = ForecastingModel(ClosedLoop(decoder), 1, 30, 40, (), normalization="none").double().eval()
    with torch.no_grad():
        decoder.a.zero_()
        decoder.b.zero_()
        decoder.b[:, 0] = 1
        decoder.c.copy_(torch.tensor(phi, dtype=torch.float64).expand(2, -1))
        assert decoder.k is not None
        decoder.k.copy_(decoder.c)
        model.input.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model.input.bias.zero_()
        assert model.roll_out is not None
        model.roll_out.linear.weight.copy_(torch.tensor([[1.0, -1.0]]))
        model.roll_out.linear.bias.zero_()
    return model


def test_an_autoregression_without_noise_is_forecast_exactly_by_the_whole_model() -> None:
    phi = [1.2, -0.5, 0.3, -0.1]
    model = by_hand(phi)
    assert sum(p.numel() for p in model.parameters()) == 2 * 4 * 4 + 4 + 3
    series = [1.0, -0.5, 0.3, 2.0]
    while len(series) < 70:
        series.append(sum(w * series[-1 - i] for i, w in enumerate(phi)))
    whole = torch.tensor(series, dtype=torch.float64)[None, :, None]
    batch = SeriesBatch(whole[:, :30], whole[:, 30:])
    close(model(batch.past)[0][..., 0], batch.future, 1e-9, "forecast")
    assert model.loss(batch).item() < 1e-20


def test_the_loss_has_three_parts() -> None:
    model = by_hand([0.9, -0.2])
    torch.manual_seed(1)
    batch = SeriesBatch(torch.randn(3, 30, 1).double(), torch.randn(3, 40, 1).double())
    past, start = batch.past[..., 0], 2
    next_value = 0.9 * past[:, 1:-1] - 0.2 * past[:, :-2]  # of steps 2 .. 29
    error = (next_value - past[:, 2:])[:, start - 1 :].square().mean()
    apart = error / past[:, start + 1 :].square().mean()
    horizon = model.metrics(batch)["mse"].value
    assert model.loss(batch).item() == pytest.approx(horizon + float(error) + float(apart), rel=1e-9)


def test_a_missing_value_of_the_past_is_no_target() -> None:
    model = example().double().eval()
    batch = SeriesBatch(torch.randn(1, 11, 2).double(), torch.randn(1, 5, 2).double())
    batch.past[0, -1, 0] = float("nan")
    assert model.loss(batch).isfinite()


def test_a_head_that_does_not_fit_its_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match="a backbone that can run on; got look_back=11, patch=1 and a Stack"):
        ForecastingModel(Stack.example(), 1, 11, 5, head="closed_loop")
    with pytest.raises(ValueError, match="patch=4 and a ClosedLoop"):
        example(patch=4)
    assert isinstance(example(head="all").point, nn.Linear)
