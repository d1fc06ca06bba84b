"""Distilled filters: exact where the filter is a recurrence, stable, and as far off as is said."""

import pytest
import torch

from hippodrome.analyze.distill import distill
from hippodrome.mixers.hyena import Hyena
from hippodrome.ops.diagonal_lti import diagonal_lti
from hippodrome.ops.fft_conv import fft_conv
from hippodrome.testing.ops import close


def run(system, u):
    """The recurrence of side-by-side systems, one for each channel of u (b, t, d)."""
    return diagonal_lti(u, system.log_a, system.C[:, 0])[0]


def test_a_filter_that_is_a_recurrence_is_found_again():
    j = torch.arange(160, dtype=torch.float64)
    slow = 0.8**j * torch.cos(0.5 * j + 0.3) + 0.5 * 0.7**j
    kernel = torch.stack([slow, -2 * (-0.75) ** j])
    found = distill(kernel, 3)
    assert (found.error < 1e-9).all()
    close(found.system.kernel(160)[..., 0, 0], kernel, 1e-9, "kernel")
    assert (found.values[0, 3:] < 1e-9 * found.values[0, 0]).all()
    impulse = torch.zeros(1, 160, 2, dtype=torch.float64)
    impulse[:, 0] = 1
    close(run(found.system, impulse)[0].T, kernel, 1e-9, "recurrence")


def test_a_filter_of_hyena_as_a_recurrence_errs_by_what_is_said():
    torch.manual_seed(1)
    mixer = Hyena(4, max_length=96, width=16, frequency=4.0).double()
    with torch.no_grad():
        kernel = mixer.kernel(96)[0]
    u = torch.randn(1, 4000, 4, dtype=torch.float64)
    exact = fft_conv(u, kernel)
    last = torch.full((4,), torch.inf, dtype=torch.float64)
    for order in (2, 8, 24):
        found = distill(kernel, order)
        poles = found.system.poles().norm(dim=-1)
        assert (poles < 1).all(), order
        assert (found.error < last).all(), order
        last = found.error
        # Over all lags by the closed form, and counted.
        far = torch.cat([kernel, torch.zeros(4, 3000)], 1).double() - found.system.kernel(3096)[..., 0, 0]
        close(far.norm(dim=1) / kernel.norm(dim=1), found.error, 1e-9, "error")
        noise = (run(found.system, u) - exact).norm(dim=1) / exact.norm(dim=1)
        assert torch.allclose(noise[0], found.error, rtol=0.15), order
    assert (last < 0.05).all()


def test_all_states_lose_nothing():
    torch.manual_seed(0)
    kernel = torch.randn(2, 3, 6, dtype=torch.float64)
    found = distill(kernel, 6)
    assert found.error.shape == (2, 3)
    assert found.system.C.shape[:2] == (2, 3)
    assert (found.error < 0.1).all()


def test_filters_of_nothing_and_orders_that_cannot_be():
    found = distill(torch.zeros(2, 5), 3)
    assert found.system.kernel(5).abs().max() == 0
    assert (found.error == 0).all()
    with pytest.raises(ValueError, match="1 to 5 states; got 6"):
        distill(torch.zeros(5), 6)
    with pytest.raises(ValueError, match="finite taps"):
        distill(torch.tensor([1.0, torch.nan]), 1)
