"""Initial step sizes."""

import math

import pytest
import torch

from hippodrome.inits.steps import for_timescales, inverse_softplus, log_uniform


def test_log_uniform_fills_its_range_evenly():
    steps = log_uniform(20000, 1e-3, 1e-1)
    assert steps.dtype == torch.float64
    assert steps.min() >= 1e-3
    assert steps.max() <= 1e-1
    assert steps.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.03)
    assert (steps < 1e-2).double().mean().item() == pytest.approx(0.5, abs=0.02)
    with pytest.raises(ValueError, match="0 < low <= high"):
        log_uniform(3, 0.1, 0.01)


def test_inverse_softplus_is_exact_at_both_ends():
    """softplus(x) = log1p(exp(x)): tiny y needs log y, large y is y itself."""
    y = torch.tensor([1e-12, 1e-3, 0.1, 1.0, 30.0, 1000.0], dtype=torch.float64)
    x = inverse_softplus(y)
    assert x.isfinite().all()
    torch.testing.assert_close(torch.nn.functional.softplus(x), y, rtol=1e-9, atol=0)
    assert x[0].item() == pytest.approx(math.log(1e-12), abs=1e-9)


def test_timescales_are_one_over_the_step():
    """The usual dt from 0.001 to 0.1 is a memory of 10 to 1000 steps, evenly on a logarithmic scale."""
    scales = 1 / for_timescales(20000, 10.0, 1000.0)
    assert scales.dtype == torch.float64
    assert scales.min() >= 10 * (1 - 1e-12)
    assert scales.max() <= 1000 * (1 + 1e-12)
    assert (scales < 100).double().mean().item() == pytest.approx(0.5, abs=0.02)
    torch.manual_seed(3)
    one = for_timescales(5, 10.0, 1000.0)
    torch.manual_seed(3)
    torch.testing.assert_close(one, log_uniform(5, 1e-3, 1e-1), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="0 < shortest <= longest"):
        for_timescales(3, 100.0, 10.0)
