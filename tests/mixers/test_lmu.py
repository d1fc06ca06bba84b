"""The Legendre memory unit: its window, its delay, units of time, and what it refuses."""

import pytest
import torch

from hippodrome.inits import hippo
from hippodrome.mixers.lmu import ACTIVATIONS, LMU
from hippodrome.testing.ops import close


def memory(d_state, theta):
    """One channel whose memory is of that channel."""
    mixer = LMU(1, d_state, theta=theta, activation="none").double()
    with torch.no_grad():
        mixer.input.weight.fill_(1)
    return mixer


def band_limited(length, period, seed=0):
    """A sum of waves none of which is shorter than ``period``."""
    g = torch.Generator().manual_seed(seed)
    t = torch.arange(length, dtype=torch.float64)
    waves = [
        torch.randn((), generator=g)
        * torch.sin(6.28318530718 * (t / (period * k) + torch.rand((), generator=g)))
        for k in (1, 1.37, 1.9, 3.1)
    ]
    return torch.stack(waves).sum(0).double()


@pytest.mark.parametrize("d_state", [16, 32])
def test_the_last_window_is_rebuilt(d_state):
    """Inside the window the polynomials give the input back, but for its ends."""
    theta = 200
    f = band_limited(1500, 120.0)
    with torch.no_grad():
        m = memory(d_state, float(theta))(f[None, :, None])[1].m[0, 0]
    # An input held over a step is, on average, half a step old at its end.
    age = torch.arange(theta, dtype=torch.float64) + 0.5
    rebuilt = hippo.basis("lmu", d_state, age / theta) @ m
    past = f.flip(0)
    inside = slice(theta // 20, theta - theta // 20)
    error = (rebuilt - past[:theta])[inside].norm() / past[:theta][inside].norm()
    assert float(error) < 0.02


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_readout_at_one_age_is_a_delay(share):
    """y = sum of m_i P_i(2 share - 1) is the input of share * theta steps ago."""
    theta, n = 100, 24
    f = band_limited(1200, 80.0, seed=1)
    mixer = memory(n, float(theta))
    with torch.no_grad():
        mixer.output.bias.zero_()
        mixer.output.weight.zero_()
        mixer.output.weight[0, :n] = hippo.basis("lmu", n, torch.tensor(share, dtype=torch.float64))
        y = mixer(f[None, :, None])[0][0, :, 0]
    delay = round(share * theta)
    late, early = y[3 * theta :], f[3 * theta - delay : 1200 - delay]
    assert float(torch.corrcoef(torch.stack([late, early]))[0, 1]) > 0.998


def test_it_holds_the_weights_of_legt():
    """The same memory in another basis: m_i = (-1)^i sqrt(2i+1) times the weight of LegT."""
    n, theta = 8, 20.0
    f = torch.randn(1, 60, dtype=torch.float64)
    with torch.no_grad():
        m = memory(n, theta)(f[..., None])[1].m[0, 0]
    A, B = hippo.legt(n, theta)
    step = torch.matrix_exp(A)
    into = torch.linalg.solve(A, (step - torch.eye(n, dtype=torch.float64)) @ B)
    c = torch.zeros(n, dtype=torch.float64)
    for u in f[0]:
        c = step @ c + into * u
    order = torch.arange(n, dtype=torch.float64)
    close(m, (-1) ** order * (2 * order + 1).sqrt() * c, 1e-9, "basis")


def test_theta_and_steps_are_in_one_unit():
    """Steps of 2 are a window half as long in steps, and inputs held twice as long are steps of 2."""
    x = torch.randn(2, 40, 3, dtype=torch.float64)
    long, short = LMU(3, 6, 2, theta=24.0).double(), LMU(3, 6, 2, theta=12.0).double()
    short.load_state_dict(long.state_dict())
    twice = torch.full((2, 40), 2.0, dtype=torch.float64)
    slow = long(x, dt=twice)[0]
    close(short(x)[0], slow, 1e-11, "theta")
    close(long(x.repeat_interleave(2, 1))[0][:, 1::2], slow, 1e-10, "resolution")


def test_memory_is_fixed_and_keeps_its_digits():
    mixer = LMU(2, 16, theta=30.0)
    assert {name.split(".")[0] for name, _ in mixer.named_parameters()} == {"input", "output"}
    A, _ = hippo.lmu(16, 30.0)
    assert torch.equal(mixer.bfloat16().memory.A(torch.float64), A)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    mixer = LMU(3, 4, activation=name)
    x = torch.randn(2, 9, 3)
    y = mixer(x)[0]
    mixer.activation = "none"
    expected = ACTIVATIONS[name](mixer(x)[0])
    assert torch.equal(y, expected)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="no activation 'swish'"):
        LMU(4, activation="swish")
    with pytest.raises(ValueError, match="theta is a positive"):
        LMU(4, theta=0.0)
