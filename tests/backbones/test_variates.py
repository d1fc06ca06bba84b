"""Rows that are variates of one series: TSM2 and stacks over all of them, whole, in pieces and by steps."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from hippodrome import config
from hippodrome.models.forecasting import ForecastingModel

PATTERNS = ["tsm2:mamba", "tsm2:min_gru+attention:bi-mamba", "variates:chimera", "variates:chimera+min_gru"]


def made(pattern: str, variates: int = 3, depth: int = 2) -> nn.Module:
    torch.manual_seed(0)
    shape = pattern.split(":")[0]
    options = {shape: {"variates": variates}}
    for kind in ("mamba", "chimera"):
        if kind in pattern:
            options[kind] = {"d_state": 2}
    model = config.build(config.stack_spec(pattern, 4, depth, options=options), "backbones").double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def values(rows: int = 6, t: int = 6) -> Tensor:
    return torch.randn(rows, t, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_call_is_pieces_is_steps(pattern: str) -> None:
    model, x = made(pattern), values()
    resets = torch.zeros(6, 6, dtype=torch.bool)
    resets[:3, 3] = resets[3:, 0] = resets[3:, 5] = True
    with torch.no_grad():
        whole, last = model(x, resets=resets)
        state, own, parts = model.init_state(6, 6), model.init_state(6, 6), []
        for i in range(6):
            state, own = (model.reset_rows(s, resets[:, i]) for s in (state, own))
            y, state = model.step(x[:, i], state)
            torch.testing.assert_close(model.advance_(x[:, i], own), y, rtol=1e-9, atol=1e-12)
            parts.append(y)
        torch.testing.assert_close(torch.stack(parts, 1), whole, rtol=1e-9, atol=1e-12)
        for a, b in pairwise([0, 3, 4, 6]):
            y, state = model(x[:, a:b], None if a == 0 else state, resets=resets[:, a:b])
            torch.testing.assert_close(y, whole[:, a:b], rtol=1e-9, atol=1e-12)
        more = values(t=2)
        torch.testing.assert_close(model(more, state)[0], model(more, last)[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_series_hears_all_its_variates_and_no_other_series_and_no_later_time(pattern: str) -> None:
    model = made(pattern)
    x = values().requires_grad_()
    y, _ = model(x)
    (slope,) = torch.autograd.grad(y[1, 5].square().sum(), x)
    heard = slope.abs().sum(-1) > 0
    assert bool(heard[:3, 5].all())
    assert bool(heard[1, :6].all())
    assert not heard[:, 6:].any()
    assert not heard[3:].any()


@pytest.mark.parametrize("pattern", ["tsm2:mamba", "variates:chimera"])
def test_rows_that_the_last_series_lacks_are_zeros(pattern: str) -> None:
    model, x = made(pattern), values(5)
    filled = torch.cat([x, torch.zeros_like(x[:1])])
    y, state = model(x)
    assert y.shape == x.shape
    if pattern == "variates:chimera":
        torch.testing.assert_close(y, model(filled)[0][:5])
    y_t, _ = model.step(x[:, 0], model.init_state(5))
    torch.testing.assert_close(y_t, y[:, 0])
    assert len(model.reset_rows(state, torch.ones(5, dtype=torch.bool))) == 1


@pytest.mark.parametrize("pattern", PATTERNS)
def test_everything_gets_a_gradient(pattern: str) -> None:
    model = made(pattern)
    y, _ = model(values())
    y.square().mul(torch.arange(4)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


def test_the_order_of_variates_counts_and_equal_directions_flip_with_it() -> None:
    model = made("tsm2:mamba")
    for mixer in model.across:
        mixer.back.load_state_dict(mixer.ahead.state_dict())
    x = values()
    y = model(x)[0].view(2, 3, 6, 4)
    flipped = model(x.view(2, 3, 6, 4).flip(1).flatten(0, 1))[0].view(2, 3, 6, 4).flip(1)
    torch.testing.assert_close(flipped, y, rtol=1e-11, atol=1e-13)
    swapped = model(x.view(2, 3, 6, 4)[:, [1, 0, 2]].flatten(0, 1))[0].view(2, 3, 6, 4)[:, [1, 0, 2]]
    assert not torch.allclose(swapped, y)


def test_without_variate_mixers_rows_are_rows() -> None:
    model = made("tsm2:mamba")
    with torch.no_grad():
        for weights in model.averages.of_channels:
            weights[1:] = 0
    x = values()
    torch.testing.assert_close(model(x)[0][2:3].expand(3, -1, -1), model(x[2:3].expand(3, -1, -1))[0])


@pytest.mark.parametrize("pattern", ["tsm2:mamba", "variates:chimera"])
def test_a_forecaster_streams_through_it(pattern: str) -> None:
    backbone = made(pattern, variates=2).float()
    model = ForecastingModel(backbone, 2, look_back=11, horizon=5, patch=4, stride=2)
    past = torch.randn(3, 15, 2)
    with torch.no_grad():
        whole, _ = model(past)
        _, state = model(past[:, :11])
        joined, _ = model(past[:, 11:], state)
    torch.testing.assert_close(joined, whole)


def test_static_and_known_covariates_reach_a_forecast_through_the_variate_mixers() -> None:
    backbone = made("tsm2:mamba", variates=4)
    sizes = {"observed": 1, "known": 1, "static": 3, "covariates": "variates"}
    model = ForecastingModel(backbone, 2, 11, 5, (), patch=4, stride=2, **sizes).double()
    past, known, static = (
        torch.randn(2, *size, dtype=torch.float64, requires_grad=True) for size in ((11, 4), (5, 1), (3,))
    )
    forecast, _ = model(past, known=known, static=static)
    told = torch.autograd.grad(forecast[0, 2, 1, 0], (past, known, static), retain_graph=True)
    assert bool((told[0][0].abs().sum(0) > 0).all())  # both variates and both covariates
    assert not told[0][1].any()
    assert told[1][0].abs().sum(1).nonzero()[:, 0].tolist() == [2]  # what is known of that step alone
    assert bool((told[2][0] != 0).all())
    # Without mixers across the variates, a covariate that is a row of its own reaches no variate.
    for weights in model.backbone.averages.of_channels:
        weights.data[1:] = 0
    forecast, _ = model(past, known=known, static=static)
    (alone,) = torch.autograd.grad(forecast[0, 2, 1, 0], past)
    assert (alone[0].abs().sum(0) > 0).tolist() == [False, True, False, False]


def test_what_cannot_be_meant_is_refused_with_a_sentence() -> None:
    for pattern in ("tsm2:mamba", "variates:chimera"):
        with pytest.raises(ValueError, match="Give it variates=2"):
            ForecastingModel(made(pattern).float(), 2, look_back=11, horizon=5)
        with pytest.raises(ValueError, match="variates=7"):
            config.stack_spec(pattern, 4, 1)
    with pytest.raises(ValueError, match="causal ones along time"):
        made("tsm2:bi-mamba:mamba")
    with pytest.raises(ValueError, match="a pattern along time"):
        config.stack_spec("tsm2:mamba:mamba:mamba", 4, options={"tsm2": {"variates": 2}})
    with pytest.raises(ValueError, match="takes one pattern"):
        config.stack_spec("variates:chimera:mamba", 4, options={"variates": {"variates": 2}})
