"""Spectra of autoregressions: closed forms, and a forecaster that is one."""

import math

import pytest
import torch

from hippodrome.analyze.spectra import POINTS, density, drawings, learned
from hippodrome.backbones.closed_loop import ClosedLoop
from hippodrome.mixers.space_time import SpaceTime
from hippodrome.models.forecasting import ForecastingModel

OMEGA = (torch.arange(POINTS, dtype=torch.float64) + 0.5) * torch.pi / POINTS


def test_the_mean_of_the_density_is_the_variance() -> None:
    for r in (0.5, -0.9):
        phi = torch.tensor([r], dtype=torch.float64)
        assert density(phi, OMEGA, 2.0).mean().item() == pytest.approx(4 / (1 - r**2), rel=1e-9)


def test_the_peak_of_a_pair_of_poles_is_at_their_angle() -> None:
    radius, angle = 0.98, 0.9
    phi = torch.tensor([2 * radius * math.cos(angle), -(radius**2)], dtype=torch.float64)
    assert OMEGA[density(phi, OMEGA).argmax()].item() == pytest.approx(angle, abs=0.01)


def test_a_forecaster_that_is_the_process_has_its_weights_and_spectrum() -> None:
    phi = [1.2, -0.5, 0.3]
    decoder = SpaceTime(2, 3, normalize=False, feedback=True, linear=False)
    model = ForecastingModel(ClosedLoop(decoder), 1, 20, 4, scale=[3.0], normalization="none").double()
    with torch.no_grad():
        decoder.a.zero_()
        decoder.b.copy_(torch.eye(3, dtype=torch.float64)[:1].expand(2, -1))
        decoder.c.copy_(torch.tensor(phi, dtype=torch.float64).expand(2, -1))
        model.input.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model.input.bias.zero_()
        assert model.roll_out is not None
        model.roll_out.linear.weight.copy_(torch.tensor([[1.0, -1.0]]))
    past = torch.randn(5, 20, 1, dtype=torch.float64)
    found = learned(model, past, phi, 0.5)
    torch.testing.assert_close(found.weights[:3], torch.tensor(phi, dtype=torch.float64))
    assert found.weights[3:].abs().max() < 1e-12
    assert found.distance < 1e-9
    assert found.weight_error < 1e-12
    other = learned(model, past, [0.5, 0.0, 0.3, 0.1])
    expected = math.sqrt(0.7**2 + 0.5**2 + 0.1**2) / math.sqrt(0.25 + 0.09 + 0.01)
    assert other.weight_error == pytest.approx(expected)
    assert other.distance > 1
    spectrum, weights = drawings("process", {"mine": found})
    for chart in (spectrum, weights):
        assert b"PNG" in chart.png(40)[:8]
    assert "0" in spectrum.note
