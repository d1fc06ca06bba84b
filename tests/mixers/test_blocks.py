"""Runs in blocks of time and token after token: whatever the pieces, the numbers of one run."""

import pytest
import torch

from hippodrome.mixers import _blocks
from hippodrome.mixers.dss import DSS
from hippodrome.mixers.hippo_legs import HippoLegS
from hippodrome.mixers.hippo_rnn import HippoRNN
from hippodrome.mixers.linear_system import LinearSystem
from hippodrome.mixers.liquid_s4 import LiquidS4
from hippodrome.mixers.lmu import LMU
from hippodrome.mixers.s4d import S4D
from hippodrome.mixers.s5 import S5
from hippodrome.testing.ops import close

MIXERS = [
    DSS(3, 2),
    HippoLegS(3, 4, 2),
    HippoRNN(3, 4),
    LinearSystem(3, 4),
    LiquidS4(3, 4),
    LMU(3, 4, 2),
    S4D(3, 4),
    S5(3, d_state=4),
]


@pytest.mark.parametrize("with_dt", [False, True])
@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: type(mixer).__name__)
def test_blocks_of_time_change_nothing(mixer, with_dt, monkeypatch):
    """Tokens run in blocks that bound the memory, gradients recomputed."""
    mixer = mixer.double()
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 30, 3, generator=g, dtype=torch.float64)
    dt = 0.5 + torch.rand(2, 30, generator=g, dtype=torch.float64) if with_dt else None
    resets = torch.rand(2, 30, generator=g) < 0.1 if with_dt else None
    results = []
    for block in (1 << 22, 150):
        monkeypatch.setattr(_blocks, "BLOCK", block)
        y, state = mixer(x, resets=resets, dt=dt)
        total = y.sum() + state[0].sum()
        results.append([y, *state, *torch.autograd.grad(total, list(mixer.parameters()))])
    for few, one in zip(results[1], results[0], strict=True):
        close(few, one, 1e-11, "blocks")


@pytest.mark.parametrize("gradients", [False, True])
def test_blocks_are_cut_to_their_length(gradients):
    """And with gradients each but a single one is run a second time on the way back."""
    seen = []

    def block(state, x, marks):
        seen.append(x.shape[1])
        assert marks is None
        y = x.square().cumsum(1) + state[:, None]
        return y, y[:, -1]

    x = torch.randn(2, 10, 3, dtype=torch.float64, requires_grad=True)
    start = torch.zeros(2, 3, dtype=torch.float64)
    with torch.set_grad_enabled(gradients):
        y, last = _blocks.run_in_blocks(block, 4, start, x, None)
    assert seen == [4, 4, 2]
    close(y.detach(), x.detach().square().cumsum(1), 1e-12, "outputs")
    assert torch.equal(y[:, -1], last)
    if gradients:
        (slope,) = torch.autograd.grad(y.sum(), x)
        assert sorted(seen) == [2, 2, 4, 4, 4, 4]
        close(slope, 2 * x.detach() * torch.arange(10, 0, -1)[:, None], 1e-12, "gradient")
    seen.clear()
    _blocks.run_in_blocks(block, 10, start, x, None)
    assert seen == [10]


def test_a_block_has_at_least_one_step():
    assert _blocks.steps_within(1 << 40) == 1
    assert _blocks.steps_within(0) == _blocks.BLOCK
