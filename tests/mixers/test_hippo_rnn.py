"""HiPPO-RNN: the cell written out, each memory under the contract, and the memory shared with LegS."""

import pytest
import torch

from hippodrome.inits import hippo
from hippodrome.mixers.hippo_legs import HippoLegS
from hippodrome.mixers.hippo_rnn import HippoRNN
from hippodrome.testing.mixers import check_mixer
from hippodrome.testing.ops import close


@pytest.mark.parametrize("measure", ["legt", "lagt"])
def test_contract_of_the_other_memories(measure):
    check_mixer(HippoRNN(4, 5, 2, measure, theta=6.0), length=7)


@torch.no_grad()
def test_the_cell_written_out():
    """u = W_u [x, h]; m by the bilinear rule at step k; h = (1 - g) h + g tanh(W_h [x, m])."""
    mixer = HippoRNN(3, 4).double()
    x = torch.randn(1, 9, 3, dtype=torch.float64)
    A, B = hippo.legs(4)
    one = torch.eye(4, dtype=torch.float64)
    h, m = torch.zeros(3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    expected = []
    for k in range(1, 10):
        u = mixer.input.weight[0] @ torch.cat([x[0, k - 1], h]) + mixer.input.bias[0]
        if k == 1:
            m = u * one[0]
        else:
            m = torch.linalg.inv(one - A / (2 * k)) @ ((one + A / (2 * k)) @ m + B * u / k)
        gate, candidate = (mixer.cell.weight @ torch.cat([x[0, k - 1], m]) + mixer.cell.bias).chunk(2)
        g = gate.sigmoid()
        h = (1 - g) * h + g * candidate.tanh()
        expected.append(h)
    close(mixer(x)[0][0], torch.stack(expected), 1e-11, "cell")


@torch.no_grad()
def test_its_memory_is_that_of_legs_where_it_does_not_read_itself():
    """With no weight on h, what it writes depends on x alone, and its memory is HiPPO-LegS."""
    rnn, legs = HippoRNN(3, 5, 2).double(), HippoLegS(3, 5, 2).double()
    rnn.input.bias.zero_()
    rnn.input.weight[:, 3:] = 0
    legs.input.weight.copy_(rnn.input.weight[:, :3])
    x, dt = torch.randn(2, 30, 3, dtype=torch.float64), 0.5 + torch.rand(2, 30, dtype=torch.float64)
    resets = torch.rand(2, 30) < 0.1
    close(rnn(x, resets=resets, dt=dt)[1].m, legs(x, resets=resets, dt=dt)[1].c, 1e-10, "memory")


def test_outputs_stay_between_minus_one_and_one():
    mixer = HippoRNN.example()
    assert mixer(100 * torch.randn(2, 50, 8))[0].abs().max() <= 1


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="no measure 'fout'"):
        HippoRNN(4, measure="fout")
    with pytest.raises(ValueError, match="positive number of steps"):
        HippoRNN(4, measure="legt", theta=-1.0)
    with pytest.raises(ValueError, match="no discretization 'euler'"):
        HippoRNN(4, discretization="euler")
