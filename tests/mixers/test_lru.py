"""LRU: published values, its normalization, stability, and the parameters that train slowly."""

import math

import pytest
import torch

from hippodrome.mixers.base import run_steps
from hippodrome.mixers.lru import LRU
from hippodrome.testing.ops import close


def test_published_states():
    """lambda = 0.9 exp(0.3i), gamma = sqrt(1 - 0.81), inputs 1, 0, 0, 2, in both forms."""
    mixer = LRU(1, 1).double()
    with torch.no_grad():
        mixer.nu.fill_(math.log(-math.log(0.9)))
        mixer.theta.fill_(math.log(0.3))
        mixer.gamma.fill_(0.5 * math.log(1 - 0.81))
        mixer.B.copy_(torch.tensor([[[1.0, 0.0]]]))
    inputs = torch.tensor([[1.0, 0.0, 0.0, 2.0]], dtype=torch.float64)[..., None]
    expected = [
        [0.43588989, 0.0],
        [0.37477937, 0.11593284],
        [0.29140192, 0.19935878],
        [1.06930489, 0.24891288],
    ]
    for i, value in enumerate(expected):
        known = torch.tensor([[value]], dtype=torch.float64)
        for form in (mixer, lambda x: run_steps(mixer, x)):
            torch.testing.assert_close(form(inputs[:, : i + 1])[1].x, known, rtol=0, atol=5e-9)


def test_white_noise_keeps_its_size():
    """gamma makes the state of every mode as large as the noise that drives it."""
    mixer = LRU(1, 64, r_min=0.5, r_max=0.95).double()
    with torch.no_grad():
        mixer.B.copy_(torch.tensor([1.0, 0.0]).expand_as(mixer.B))
    state = mixer.init_state(200)
    _, state = mixer(torch.randn(200, 100, 1, dtype=torch.float64), state)
    assert state.x.square().sum(-1).mean().item() == pytest.approx(1, abs=0.05)


def test_is_a_recurrence_of_complex_numbers():
    mixer = LRU.example().double()
    mixer.output = torch.nn.Identity()
    x = torch.randn(1, 20, 8, dtype=torch.float64)
    B, C = torch.view_as_complex(mixer.B.detach()), torch.view_as_complex(mixer.C.detach())
    factor = torch.exp(torch.complex(-mixer.nu.exp(), mixer.theta.exp())).detach()
    h, expected = torch.zeros(6, dtype=torch.complex128), []
    for t in range(20):
        u = x[0, t].to(torch.complex128)
        h = factor * h + mixer.gamma.detach().exp() * (B @ u)
        expected.append((C @ h).real + mixer.D.detach() * x[0, t])
    y, state = mixer(x)
    close(y[0], torch.stack(expected), 1e-11, "outputs")
    close(state.x[0], torch.view_as_real(h), 1e-11, "state")


def test_inside_the_unit_circle_after_any_step_of_training():
    mixer = LRU.example()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(3 * torch.randn_like(parameter))
    assert (mixer.system().A[..., 0] < 0).all()


def test_recurrent_parameters_train_slowly_without_decay():
    mixer = LRU.example()
    (group,) = mixer.parameter_groups()
    assert {id(p) for p in group.parameters} == {id(p) for p in (mixer.nu, mixer.theta, mixer.gamma, mixer.B)}
    assert group.lr_factor < 1
    assert group.decay is False


def test_autocast_leaves_the_state_in_float32():
    mixer = LRU.example()
    x = torch.randn(2, 20, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = mixer(x)
        _, after = mixer.step(x[:, 0], state)
    assert state.x.dtype == after.x.dtype == torch.float32
    close(state.x, mixer(x)[1].x, 1e-6, "state under autocast")


def test_steps_in_time_mean_nothing_here():
    with pytest.raises(ValueError, match="LRU has no continuous time"):
        LRU.example()(torch.zeros(1, 3, 8), dt=torch.ones(1, 3))


def test_a_ring_outside_the_disc_is_refused():
    with pytest.raises(ValueError, match="r_min < r_max <= 1"):
        LRU(4, r_max=1.5)
