"""Hyena: the nest of gates and filters by its formula, the filter by its own, and a step that is exact."""

import math

import pytest
import torch
import torch.nn.functional as F

from hippodrome.mixers.base import run_steps
from hippodrome.mixers.hyena import Hyena
from hippodrome.testing.mixers import prepared, tokens
from hippodrome.testing.ops import close


def convolved(h, v):
    """The causal convolution of v (b, t, d) with h (d, l), lag by lag."""
    y = torch.zeros_like(v)
    for lag in range(min(h.shape[1], v.shape[1])):
        y = y + F.pad(v[:, : v.shape[1] - lag] * h[:, lag], (0, 0, lag, 0))
    return y


@pytest.mark.parametrize("order", [2, 3, 4])
def test_the_nest_is_its_formula(order):
    mixer = prepared(Hyena(3, order, max_length=20, width=6, features=3))
    x = tokens(mixer, 2, 31)
    with torch.no_grad():
        u = x @ mixer.in_proj.weight.T + mixer.in_proj.bias
        padded = F.pad(u.transpose(1, 2), (2, 0))
        u = F.conv1d(padded, mixer.conv.weight, mixer.conv.bias, groups=u.shape[-1]).transpose(1, 2)
        *x_, v = u.split(3, -1)
        h, b = mixer.kernel(20), mixer.bias
        if order == 2:
            v = convolved(h[0], x_[1] * v) + b[0] * x_[1] * v
        elif order == 3:
            v = convolved(h[0], x_[2] * v) + b[0] * x_[2] * v
            v = convolved(h[1], x_[1] * v) + b[1] * x_[1] * v
        else:
            for i in range(3):
                gated = x_[3 - i] * v
                v = convolved(h[i], gated) + b[i] * gated
        expected = (x_[0] * v) @ mixer.out_proj.weight.T + mixer.out_proj.bias
        close(mixer(x)[0], expected, 1e-10, "forward")
        close(run_steps(mixer, x)[0], expected, 1e-10, "step")


def test_the_filter_is_its_network_faded():
    mixer = Hyena(5, 3, max_length=40, width=7, features=7, frequency=3.0).double()
    net = mixer.filter
    with torch.no_grad():
        net.frequency.add_(torch.randn(7, dtype=torch.float64))
    # 0.0001, 1 and 2 turns over the length: the float32 start of the parameters is taken as it is.
    j = torch.arange(40, dtype=torch.float64)
    for i, f in enumerate(torch.linspace(1e-4, 2, 3).tolist()):
        turn = torch.exp(-2j * math.pi * f * j / 40)
        assert torch.allclose(net.positions[:, 1 + i], turn.real, atol=1e-6)
        assert torch.allclose(net.positions[:, 4 + i], turn.imag, atol=1e-6)
    assert torch.allclose(net.positions[:, 0], j / 39, atol=1e-6)
    y = torch.sin(net.frequency * F.linear(net.positions, net.first, net.first_bias))
    for weight, bias in zip(net.inner, net.inner_bias, strict=True):
        y = torch.sin(net.frequency * F.linear(y, weight, bias))
    rates = torch.linspace(math.log(1e-2) / 1.5, math.log(1e-2) / 0.3, 10).double().abs()
    expected = (y @ net.last.T * torch.exp(-rates * (j / 39)[:, None])).T
    close(net(40), expected, 1e-7, "filter")
    close(net(17), net(40)[:, :17], 1e-12, "fewer taps")
    close(mixer.kernel(40)[1, 2], net(40)[5], 1e-12, "a channel's filters stand side by side")


def test_it_looks_back_and_no_further_than_its_filter():
    mixer = prepared(Hyena(3, max_length=8, width=6, features=3))
    x = tokens(mixer, 1, 40)
    changed = x.clone()
    changed[:, 10] += 1
    seen = (mixer(x)[0] - mixer(changed)[0]).abs().amax(-1)[0] > 1e-12
    assert not seen[:10].any()
    assert seen[10]
    # The short convolution's three taps and the long one's eight.
    assert seen.nonzero().max() == 10 + 2 + 7
    many = prepared(Hyena(3, 4, max_length=8, width=6, features=3))
    close(many(changed)[0][:, :10], many(x)[0][:, :10], 1e-12, "what came before")


def test_the_taps_of_a_step_follow_the_weights():
    mixer = Hyena.example().double()
    x = tokens(mixer, 2, 9)
    with torch.no_grad():
        run_steps(mixer, x)
        for parameter in mixer.parameters():
            parameter.add_(0.1)
        close(run_steps(mixer, x)[0], mixer(x)[0], 1e-10, "after a change")


def test_the_filter_trains_slowly_without_decay_and_its_positions_hardly():
    mixer = Hyena.example()
    network, positions = mixer.parameter_groups()
    assert (network.max_lr, network.decay) == (1e-3, False)
    assert (positions.max_lr, positions.decay) == (1e-5, False)
    assert positions.parameters[0] is mixer.filter.positions
    grouped = {id(p) for p in (*network.parameters, *positions.parameters)}
    assert grouped == {id(p) for p in mixer.filter.parameters()}


def test_sizes_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="got order=1"):
        Hyena(4, 1)
    with pytest.raises(ValueError, match="max_length=0"):
        Hyena(4, max_length=0)
    with pytest.raises(ValueError, match="3 or more; got 4"):
        Hyena(4, features=4)
    with pytest.raises(ValueError, match="no continuous time"):
        Hyena.example()(torch.randn(1, 3, 6), dt=torch.ones(1, 3))
