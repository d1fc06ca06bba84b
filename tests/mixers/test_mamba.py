"""Mamba: the whole-mixer fixture, a loop written from the paper, and how it starts."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.mixers.base import run_steps
from hippodrome.mixers.mamba import Mamba
from hippodrome.testing.mixers import prepared, tokens

PHASES = {
    "in_proj.weight": 1,
    "conv1d.weight": 2,
    "conv1d.bias": 3,
    "x_proj.weight": 4,
    "dt_proj.weight": 5,
    "out_proj.weight": 6,
}
LAST = [-0.16879792, -0.14895881, -0.10968653, -0.05610453, 0.00479686, 0.06507245, 0.11685869, 0.15339954]


def wave(shape: torch.Size | tuple[int, ...], rate: float, phase: float = 0.0) -> Tensor:
    count = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return torch.sin(rate * count + phase).view(shape)


def fixture() -> Mamba:
    mixer = Mamba(8, d_state=4, dt_rank=2).double()
    with torch.no_grad():
        for name, phase in PHASES.items():
            parameter = mixer.get_parameter(name)
            parameter.copy_(0.5 * wave(parameter.shape, 0.37, phase))
        mixer.A_log.copy_(torch.log(torch.arange(1.0, 5, dtype=torch.float64)).expand(16, 4))
        mixer.D.fill_(1.0)
        mixer.dt_proj.bias.fill_(-2.0)
    return mixer


@pytest.mark.parametrize("run", [lambda m, x: m(x), run_steps], ids=["forward", "step"])
def test_whole_mixer_fixture(run) -> None:
    with torch.no_grad():
        y, _ = run(fixture(), wave((1, 6, 8), 0.21))
    torch.testing.assert_close(y[0, -1], torch.tensor(LAST, dtype=torch.float64), atol=1e-8, rtol=0)
    assert float(y.sum()) == pytest.approx(3.29096829, abs=1e-8)


def test_names_and_shapes_are_those_of_the_checkpoints() -> None:
    shapes = {name: tuple(p.shape) for name, p in Mamba(32).named_parameters()}
    assert shapes == {
        "in_proj.weight": (128, 32),
        "conv1d.weight": (64, 1, 4),
        "conv1d.bias": (64,),
        "x_proj.weight": (2 + 2 * 16, 64),
        "dt_proj.weight": (64, 2),
        "dt_proj.bias": (64,),
        "A_log": (64, 16),
        "D": (64,),
        "out_proj.weight": (32, 64),
    }


def test_first_step_sizes_are_log_uniform_and_rates_count_up() -> None:
    mixer = Mamba(512)
    dt = F.softplus(mixer.dt_proj.bias.detach().double())
    assert 0.99e-3 < float(dt.min()) < 1.1e-3
    assert 0.09 < float(dt.max()) < 0.101
    # Uniform in the logarithm: mean and variance of log10(dt) over (-3, -1) are -2 and 1/3.
    assert float(torch.log10(dt).mean()) == pytest.approx(-2, abs=0.08)
    assert float(torch.log10(dt).var()) == pytest.approx(1 / 3, abs=0.05)
    assert torch.equal(mixer.A_log[7], torch.log(torch.arange(1.0, 17)))
    assert torch.equal(mixer.D, torch.ones(1024))


def test_dt_multiplies_the_step_size_after_softplus() -> None:
    mixer = prepared(Mamba.example())
    x = tokens(mixer, 1, 5)
    dt = torch.tensor([[1.0, 0.5, 2.0, 1.0, 3.0]], dtype=torch.float64)
    xs, z = mixer.in_proj(x).chunk(2, -1)
    padded = F.pad(xs.transpose(1, 2), (3, 0))
    xs = F.silu(F.conv1d(padded, mixer.conv1d.weight, mixer.conv1d.bias, groups=16)).transpose(1, 2)
    low, B, C = mixer.x_proj(xs).split([1, 4, 4], -1)
    steps = F.softplus(low @ mixer.dt_proj.weight.T + mixer.dt_proj.bias) * dt[..., None]
    h = torch.zeros(16, 4, dtype=torch.float64)
    outputs = []
    for t in range(5):
        for e in range(16):
            h = h.clone()
            h[e] = (
                torch.exp(-steps[0, t, e] * mixer.A_log[e].exp()) * h[e]
                + steps[0, t, e] * B[0, t] * xs[0, t, e]
            )
        outputs.append((h @ C[0, t] + mixer.D * xs[0, t]) * F.silu(z[0, t]))
    expected = torch.stack(outputs) @ mixer.out_proj.weight.T
    torch.testing.assert_close(mixer(x, dt=dt)[0][0], expected, atol=1e-12, rtol=1e-10)


def test_rates_and_step_sizes_stay_in_float32_under_autocast() -> None:
    mixer = Mamba.example()
    x = tokens(mixer, 2, 5, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = mixer(x)
    assert state.h.dtype == torch.float32
    y.float().sum().backward()
    for parameter in (mixer.A_log, mixer.D, mixer.dt_proj.bias):
        assert parameter.dtype == parameter.grad.dtype == torch.float32


def test_slow_parameters_do_not_decay() -> None:
    mixer = Mamba.example()
    groups = mixer.parameter_groups()
    assert not any(group.decay for group in groups)
    slow = {id(p) for group in groups for p in group.parameters}
    assert slow == {id(mixer.A_log), id(mixer.D), id(mixer.dt_proj.bias)}


def test_impossible_step_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="Step sizes need 0 < low <= high"):
        Mamba(8, dt_min=0.1, dt_max=0.01)
    with pytest.raises(ValueError, match="at least one tap"):
        Mamba(8, taps=0)
