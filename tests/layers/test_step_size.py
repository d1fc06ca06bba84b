"""First step sizes, and a projection that leaves its bias to the scan."""

import torch
import torch.nn.functional as F

from hippodrome.layers.step_size import StepProjection, initial_step_bias


def test_softplus_of_the_bias_lies_between_the_bounds() -> None:
    dt = F.softplus(initial_step_bias(10_000, 1e-3, 0.1).double())
    assert 0.999e-3 < float(dt.min()) < float(dt.max()) < 0.1001
    floored = F.softplus(initial_step_bias(1000, 1e-6, 1e-5, dt_floor=1e-4).double())
    torch.testing.assert_close(floored, torch.full_like(floored, 1e-4), atol=0, rtol=1e-4)


def test_the_product_leaves_the_bias_out() -> None:
    projection = StepProjection(3, 5, 1e-3, 0.1, 1e-4)
    x = torch.randn(2, 3)
    torch.testing.assert_close(projection(x), x @ projection.weight.T)
    assert float(projection.weight.detach().abs().max()) <= 3**-0.5
