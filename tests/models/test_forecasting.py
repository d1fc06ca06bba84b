"""What is peculiar to the forecaster: units, normalization, quantiles in order, missing values, streams."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.backbones.stack import Stack
from hippodrome.models.forecasting import ForecastingModel
from hippodrome.shapes import SeriesBatch

NAN = float("nan")


def forecaster(**options: object) -> ForecastingModel:
    given = {"channels": 2, "look_back": 8, "horizon": 3, "patch": 4, **options}
    return ForecastingModel(Stack.example(), **given).double().eval()  # type: ignore[arg-type]


def past(rows: int = 3, steps: int = 8) -> torch.Tensor:
    return torch.randn(rows, steps, 2, dtype=torch.float64)


def test_outputs_are_a_point_and_increasing_quantiles() -> None:
    out, _ = forecaster(quantiles=(0.05, 0.3, 0.7, 0.9))(past())
    assert out.shape == (3, 3, 2, 5)
    assert bool((out[..., 1:].diff(dim=-1) > 0).all())


def test_level_and_size_of_a_window_pass_through() -> None:
    model = forecaster(location=[5.0, -3.0], scale=[2.0, 7.0])
    x = past() * torch.tensor([2.0, 7.0]).double()
    out, _ = model(x)
    moved, _ = model(100 + 10 * x)
    torch.testing.assert_close(moved, 100 + 10 * out, rtol=1e-4, atol=1e-3)


def test_variates_share_all_weights_and_do_not_mix() -> None:
    model = forecaster()
    x = past()
    out, _ = model(x)
    turned, _ = model(x.flip(-1))
    torch.testing.assert_close(turned, out.flip(2), rtol=1e-9, atol=1e-12)
    other = x.clone()
    other[..., 1] += torch.randn(3, 8).double()
    torch.testing.assert_close(model(other)[0][:, :, 0], out[:, :, 0], rtol=1e-12, atol=0)


def test_metrics_are_on_the_scale_of_the_train_data() -> None:
    model = forecaster(location=[5.0, -3.0], scale=[2.0, 7.0])
    x, future = 5 + past(), 5 + past(3, 3)
    out, _ = model(x)
    error = (out[..., 0] - future) / torch.tensor([2.0, 7.0])
    found = model.metrics(SeriesBatch(x, future))
    assert found["mse"].value == pytest.approx(error.square().mean().item(), rel=1e-9)
    assert found["mae"].value == pytest.approx(error.abs().mean().item(), rel=1e-9)
    inside = (future >= out[..., 1]) & (future <= out[..., -1])
    assert found["coverage"].value == pytest.approx(float(inside.double().mean()))


def test_loss_is_squared_error_plus_pinball() -> None:
    model = forecaster(quantiles=(0.2, 0.8))
    x, future = past(), past(3, 3)
    out, _ = model(x)
    error = future[..., None] - out[..., 1:]
    levels = torch.tensor([0.2, 0.8]).double()
    pinball = torch.where(error >= 0, levels * error, (levels - 1) * error).mean()
    expected = (out[..., 0] - future).square().mean() + pinball
    torch.testing.assert_close(model.loss(SeriesBatch(x, future)), expected, rtol=1e-6, atol=0)


def test_point_does_not_learn_from_the_quantiles() -> None:
    model = forecaster()
    out, _ = model(past())
    (grad,) = torch.autograd.grad(out[..., 1:].sum(), model.point.weight)
    assert bool((grad == 0).all())


def test_missing_past_is_left_out_of_the_statistics() -> None:
    model = forecaster()
    x = past(1)
    x[0, 2:4, 0] = NAN
    _, state = model(x)
    seen = torch.cat([x[0, :2, 0], x[0, 4:, 0]])
    torch.testing.assert_close(state.mean[0, 0], seen.mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(state.spread[0, 0], (seen.var(correction=0) + 1e-5).sqrt(), rtol=1e-9, atol=0)
    filled = x.clone()
    filled[0, 2:4, 0] = seen.mean()
    same, _ = model(filled)
    assert bool(model(x)[0].isfinite().all())
    torch.testing.assert_close(model(x)[0][:, :, 1], same[:, :, 1], rtol=1e-12, atol=0)


def test_window_that_is_all_missing_forecasts_the_train_mean_scale() -> None:
    model = forecaster(location=[50.0, 0.0])
    x = past(1)
    x[..., 0] = NAN
    out, state = model(x)
    assert bool(out.isfinite().all())
    assert (float(state.mean[0, 0]), float(state.spread[0, 0])) == (0.0, 1.0)


def test_missing_future_is_left_out_of_loss_and_metrics() -> None:
    model = forecaster()
    x, future = past(), past(3, 3)
    holes = future.clone()
    holes[1] = NAN
    kept = torch.tensor([0, 2])
    less = SeriesBatch(x[kept], future[kept])
    torch.testing.assert_close(model.loss(SeriesBatch(x, holes)), model.loss(less), rtol=1e-9, atol=0)
    assert model.metrics(SeriesBatch(x, holes))["mse"].count == 12


@settings(deadline=None, max_examples=15)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 3),
    st.sampled_from(["all", "last"]),
)
def test_streams_join_for_all_sizes(look_back: int, patch: int, stride: int, more: int, head: str) -> None:
    patch, stride = min(patch, look_back), min(stride, patch, look_back)
    model = forecaster(look_back=look_back, patch=patch, stride=stride, head=head)
    x = past(2, look_back + more * stride)
    whole, last = model(x)
    out, state = model(x[:, :look_back])
    for i in range(more):
        out, state = model(x[:, look_back + i * stride : look_back + (i + 1) * stride], state)
    torch.testing.assert_close(out, whole, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(state.tail, last.tail, rtol=1e-9, atol=1e-12)


def test_statistics_of_a_stream_stay_those_of_its_start() -> None:
    model = forecaster()
    x = past(1)
    _, state = model(x)
    _, later = model(1000 * past(1, 4), state)
    torch.testing.assert_close(later.mean, state.mean, rtol=0, atol=0)
    assert float(later.started) == 1


@pytest.mark.parametrize("steps", [7, 9])
def test_refuses_a_start_of_another_length(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"look_back=8 steps, or more by .* stride=2; got {steps}"):
        forecaster()(past(1, steps))


def test_refuses_what_it_cannot_do() -> None:
    model = forecaster()
    _, state = model(past())
    with pytest.raises(ValueError, match="multiples of stride=2 steps; got 1"):
        model.step(past(3, 1)[:, 0], state)
    with pytest.raises(ValueError, match="neither resets nor dt"):
        model(past(), resets=torch.zeros(3, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match="neither resets nor dt"):
        model(past(), dt=torch.ones(3, 8).double())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patch": 9}, "1 <= stride <= patch <= look_back; got 4, 9 and 8"),
        ({"stride": 5}, "leave no gaps"),
        ({"quantiles": (0.9, 0.1)}, r"increasing levels inside \(0, 1\)"),
        ({"quantiles": (0.0, 0.5)}, r"increasing levels inside \(0, 1\)"),
        ({"location": [1.0]}, "location holds one number for each of the 2 variates; got 1"),
        ({"horizon": 0}, "are 1 or more; got 2, 8 and 0"),
    ],
)
def test_refuses_sizes_that_do_not_fit(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        forecaster(**options)


def test_point_alone_where_no_quantiles_are_asked() -> None:
    model = forecaster(quantiles=())
    out, _ = model(past())
    assert out.shape == (3, 3, 2, 1)
    batch = SeriesBatch(past(), past(3, 3))
    assert set(model.metrics(batch)) == {"mse", "mae"}
    assert model.loss(batch).isfinite()
