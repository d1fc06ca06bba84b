"""What is peculiar to the forecaster: units, normalization, quantiles in order, missing values, streams."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.backbones.tsm2 import TSM2
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.mixers.s4d import S4D
from hippodrome.models.forecasting import ForecastingModel
from hippodrome.shapes import SeriesBatch
from hippodrome.testing.models import check_loss, check_metrics, check_model

NAN = float("nan")


def forecaster(backbone: object = None, **options: object) -> ForecastingModel:
    given = {"channels": 2, "look_back": 8, "horizon": 3, "patch": 4, **options}
    return ForecastingModel(backbone or Stack.example(), **given).double().eval()  # type: ignore[arg-type]


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
    with pytest.raises(ValueError, match="takes no resets"):
        model(past(), resets=torch.zeros(3, 8, dtype=torch.bool))
    both_ways = forecaster(Stack([Block(Bidirectional(MinGRU(8), MinGRU(8)))]))
    with pytest.raises(ValueError, match="time steps reach a causal backbone"):
        both_ways(past(), dt=torch.ones(3, 8).double())
    with pytest.raises(ValueError, match="hold 2 variates and 0 covariates; got 3 columns"):
        model(torch.zeros(1, 8, 3).double())


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


def with_covariates(backbone: object = None, **options: object) -> ForecastingModel:
    torch.manual_seed(0)
    given = {"channels": 2, "look_back": 8, "horizon": 3, "patch": 4, "observed": 1, "known": 2, "static": 3}
    given |= {"covariate_location": [1.0, 2.0, 3.0], "covariate_scale": [2.0, 1.0, 0.5], **options}
    model = ForecastingModel(backbone or Stack.example(), **given)  # type: ignore[arg-type]
    return model.double().eval()


def covariate_batch() -> SeriesBatch:
    torch.manual_seed(1)
    drawn = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 8, 5), (3, 3, 2), (3, 3, 2), (3, 3)))
    return SeriesBatch(*drawn)


@pytest.mark.parametrize("covariates", ["added", "variates"])
def test_every_covariate_reaches_the_forecast(covariates: str) -> None:
    across = None if covariates == "added" else TSM2([MinGRU(8)], [Bidirectional(MinGRU(8), MinGRU(8))], 5)
    model = with_covariates(across, covariates=covariates)
    batch = covariate_batch()
    check_loss(model, batch)
    check_metrics(model, batch)
    plain, _ = model(batch.past, known=batch.known, static=batch.static)
    for name in ("past", "known", "static"):
        for column in range(getattr(batch, name).shape[-1]):
            other = getattr(batch, name).clone()
            other[0, ..., column] += 1.0
            told = {**batch._asdict(), name: other}
            moved, _ = model(told["past"], known=told["known"], static=told["static"])
            assert not torch.equal(moved[0], plain[0]), (name, column)
            torch.testing.assert_close(moved[1:], plain[1:], rtol=1e-12, atol=0)


def test_a_stream_with_covariates_joins() -> None:
    model = with_covariates()
    batch = covariate_batch()
    longer = torch.cat([batch.past, torch.randn(3, 4, 5).double()], 1)
    whole, _ = model(longer, known=batch.known, static=batch.static)
    _, state = model(batch.past, known=batch.known, static=batch.static)
    ends, _ = model(longer[:, 8:], state, known=batch.known)
    torch.testing.assert_close(ends, whole, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="reads 2 covariates that are known ahead; got none"):
        model(batch.past, static=batch.static)
    with pytest.raises(ValueError, match="reads 3 static covariates at the start of a stream; got none"):
        model(batch.past, known=batch.known)


def test_a_missing_covariate_counts_as_its_mean() -> None:
    model = with_covariates()
    batch = covariate_batch()
    holes, means = batch.past.clone(), batch.past.clone()
    holes[0, 2:5, 3], means[0, 2:5, 3] = NAN, 2.0
    found, _ = model(holes, known=batch.known, static=batch.static)
    wanted, _ = model(means, known=batch.known, static=batch.static)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("positions", [False, True])
def test_a_backbone_that_reads_both_ways_joins_in_a_stream(positions: bool) -> None:
    torch.manual_seed(0)
    backbone = Stack([Block(Bidirectional(MinGRU(8), MinGRU(8)))])
    model = ForecastingModel(backbone, 2, 11, 5, patch=4, stride=2, positions=positions, affine=True)
    check_model(model, ForecastingModel.example_batch())


def test_a_backbone_that_reads_both_ways_sees_the_window_alone() -> None:
    model = forecaster(Stack([Block(Bidirectional(MinGRU(8), MinGRU(8)))]), normalization="none").double()
    x = past(2, 12)
    torch.testing.assert_close(model(x)[0], model(x[:, 4:])[0], rtol=1e-9, atol=1e-12)


def test_the_shortcut_alone_is_a_linear_map_of_the_window() -> None:
    torch.manual_seed(0)
    model = ForecastingModel(None, 2, 11, 5, shortcut=5, normalization="none", scale=[2.0, 0.5])
    check_model(model, ForecastingModel.example_batch())
    x, y = past(2, 11), past(2, 11)
    model = model.double().eval()
    zero = model(torch.zeros_like(x))[0][..., 0]
    both = model(x + 3 * y)[0][..., 0] - zero
    apart = model(x)[0][..., 0] - zero + 3 * (model(y)[0][..., 0] - zero)
    torch.testing.assert_close(both, apart, rtol=1e-9, atol=1e-9)
    shortcut = model.shortcut
    assert shortcut is not None
    smooth = torch.stack([x[:, [max(0, min(10, i + j)) for j in range(-2, 3)]].mean(1) for i in range(11)], 1)
    assert shortcut.remainder is not None
    by_hand = shortcut.trend((smooth / model.scale).mT) + shortcut.remainder(((x - smooth) / model.scale).mT)
    torch.testing.assert_close(model(x)[0][..., 0], by_hand.mT * model.scale, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("normalization", ["window", "level", "last", "none"])
def test_what_a_normalization_takes_off_comes_back(normalization: str) -> None:
    model = forecaster(normalization=normalization, shortcut=3, affine=True)
    with torch.no_grad():
        model.gain.add_(torch.tensor([0.5, -0.3]))
        model.shift.add_(torch.tensor([0.2, 0.1]))
    x = past()
    x[0, -1, 0] = NAN
    out, state = model(x)
    parts = model.components(x)
    assert list(parts) == ["level", "backbone", "trend", "remainder"]
    torch.testing.assert_close(sum(parts.values()), out[..., 0], rtol=1e-9, atol=1e-9)
    wanted = {"window": x.nanmean(1), "level": x.nanmean(1), "last": x[:, -1], "none": 0 * x.nanmean(1)}
    found = wanted[normalization].clone()
    if normalization == "last":
        found[0, 0] = x[0, -2, 0]
    torch.testing.assert_close(state.mean, found, rtol=1e-12, atol=1e-12)
    moved, _ = model(x + 100)
    if normalization != "none":
        torch.testing.assert_close(moved, out + 100, rtol=1e-6, atol=1e-6)


def test_time_steps_reach_the_tokens_of_their_patches() -> None:
    torch.manual_seed(0)
    backbone = Stack([Block(S4D(8, d_state=4))])
    model = ForecastingModel(backbone, 2, look_back=8, horizon=3, patch=4, stride=2).double().eval()
    x, dt = past(2, 12), 0.5 + torch.rand(2, 12, dtype=torch.float64)
    out, _ = model(x, dt=dt)
    paces = torch.stack([dt[:, :4].mean(1), *(dt[:, i : i + 2].mean(1) for i in (4, 6, 8, 10))], 1)
    rows = model._rows(x, None, None, None)[0]
    said, _ = backbone(rows, dt=paces.repeat_interleave(2, 0))
    point = model.point(said.unflatten(0, (2, 2))[:, :, -3:].flatten(2))
    _, state = model(x[:, :8], dt=dt[:, :8])
    torch.testing.assert_close(model(x[:, 8:], state, dt=dt[:, 8:])[0], out, rtol=1e-9, atol=1e-12)
    wanted = (point * state.spread[..., None] + state.mean[..., None]).mT
    torch.testing.assert_close(out[..., 0], wanted, rtol=1e-9, atol=1e-12)
    assert not torch.equal(out, model(x)[0])


def test_the_point_may_be_trained_by_absolute_error() -> None:
    model = forecaster(quantiles=(), error="absolute")
    x, future = past(), past(3, 3)
    wanted = (model(x)[0][..., 0] - future).abs().mean()
    torch.testing.assert_close(model.loss(SeriesBatch(x, future)), wanted, rtol=1e-9, atol=0)
