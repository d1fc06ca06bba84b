"""Two scales: two stacks side by side, whole, in pieces and by steps, and the forecasts that they share."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from hippodrome import config
from hippodrome.backbones.two_scales import TwoScales
from hippodrome.models.forecasting import ForecastingModel

PATTERNS = ["two_scales:chimera", "two_scales:s4d", "two_scales:mamba"]


def made(pattern: str, width: int = 8, **own) -> nn.Module:
    torch.manual_seed(0)
    kind = pattern.split(":")[1]
    options = {"two_scales": {"variates": 2, **own}, kind: {"d_state": 2}}
    return config.build(config.stack_spec(pattern, width, 1, options=options), "backbones").double().eval()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_call_is_pieces_is_steps(pattern: str) -> None:
    model = made(pattern)
    x = torch.randn(4, 6, 8, dtype=torch.float64)
    resets = torch.zeros(4, 6, dtype=torch.bool)
    resets[:2, 3] = resets[2:, 4] = True
    with torch.no_grad():
        whole, _ = model(x, resets=resets)
        state, own = model.init_state(4, 6), model.init_state(4, 6)
        for i in range(6):
            state, own = (model.reset_rows(s, resets[:, i]) for s in (state, own))
            y, state = model.step(x[:, i], state)
            torch.testing.assert_close(y, whole[:, i], rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(model.advance_(x[:, i], own), y, rtol=1e-9, atol=1e-12)
        for a, b in pairwise([0, 3, 4, 6]):
            y, state = model(x[:, a:b], None if a == 0 else state, resets=resets[:, a:b])
            torch.testing.assert_close(y, whole[:, a:b], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_two_stacks_do_not_meet(pattern: str) -> None:
    model = made(pattern)
    x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    y, _ = model(x)
    for first, end in model.parts.values():
        (slope,) = torch.autograd.grad(y[..., first:end].square().sum(), x, retain_graph=True)
        heard = slope.abs().sum((0, 1)) > 0
        assert heard[first:end].all()
        assert int(heard.sum()) == end - first


def test_both_ways_of_a_mixer_are_told_variates_and_steps() -> None:
    options = {"two_scales": {"variates": 2}, "chimera": {"d_state": 2}}
    made = config.stack_spec("two_scales:bi-chimera", 8, 1, options=options)
    assert made["variates"] == 2
    for part, steps in (("long", (1e-3, 1e-2)), ("season", (0.1, 1.0))):
        mixer = made[part]["blocks"][0]["mixer"]
        for way in ("ahead", "back"):
            told = mixer[way]
            assert (told["variates"], told["dt_min"], told["dt_max"]) == (2, *steps)


def test_small_steps_along_time_remember_longer() -> None:
    model = made("two_scales:chimera", 64)
    sizes = []
    for part in (model.long, model.season):
        (system, *_) = part.stack.blocks[0].mixer.systems
        sizes.append([torch.nn.functional.softplus(bias).detach() for bias in system.step_biases()])
    (slow, across), (fast, beside) = sizes
    assert float(slow.max()) <= 0.0101
    assert float(fast.min()) >= 0.0999
    # Along the variates both start alike.
    for size in (across, beside):
        assert float(size.min()) >= 0.00099
        assert float(size.max()) <= 0.1001
    base = torch.randn(2, 1, 64, dtype=torch.float64).expand(2, 40, 64)
    other = torch.cat([base[:, :1] + 1, base[:, 1:]], 1)
    with torch.no_grad():
        left = (model(other)[0] - model(base)[0]).abs()
    long, season = (left[:, -1, a:b].mean() / left[:, 1, a:b].mean() for a, b in model.parts.values())
    assert float(long) > 20 * float(season)


def test_a_forecast_is_the_sum_of_what_both_are_decoded_to() -> None:
    model = ForecastingModel(
        made("two_scales:chimera"), 2, 11, 5, (), [1.0, -2.0], [2.0, 0.5], patch=4, stride=2, shortcut=5
    ).double()
    past = torch.randn(3, 11, 2, dtype=torch.float64).cumsum(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        parts = model.components(past)
        point = model(past)[0][..., 0]
        assert list(parts) == ["level", "long term", "season", "trend", "remainder"]
        torch.testing.assert_close(sum(parts.values()), point, rtol=1e-12, atol=1e-12)
        assert all(float(part.abs().max()) > 0 for part in parts.values())
        # One stack alone moves its own share alone.
        next(model.backbone.season.parameters()).mul_(2)
        other = model.components(past)
    assert torch.equal(other["long term"], parts["long term"])
    assert not torch.equal(other["season"], parts["season"])
    torch.testing.assert_close(sum(other.values()), model(past)[0][..., 0], rtol=1e-12, atol=1e-12)


def test_what_cannot_be_meant_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="lru has none to set"):
        config.stack_spec("two_scales:lru", 8, 1)
    with pytest.raises(ValueError, match="an even width"):
        config.stack_spec("two_scales:s4d", 7, 1)
    with pytest.raises(ValueError, match="'slow'"):
        config.stack_spec("two_scales:s4d", 8, 1, options={"two_scales": {"slow": [0.1, 1.0]}})
    for steps in (0.1, [0.1], [1.0, 0.1], [0.0, 1.0], "ab"):
        with pytest.raises(ValueError, match=r"takes long as \[smallest, largest\] step size"):
            config.stack_spec("two_scales:s4d", 8, 1, options={"two_scales": {"long": steps}})
    model = TwoScales.example()
    with pytest.raises(ValueError, match="share a token evenly"):
        TwoScales(model.long.stack, config.build(config.stack_spec("s4d", 4, 1), "backbones"))
