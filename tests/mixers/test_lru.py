"""LRU: published values, its normalization, stability, and the parameters that train slowly."""

import copy
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


def test_poles_fill_the_ring_evenly():
    """|lambda|^2 is uniform between the squares of the radii, the phase uniform below its bound."""
    mixer = LRU(2, 4000, r_min=0.6, r_max=0.95, max_phase=0.5)
    A = mixer.system().A.detach().double()
    square, phase = (2 * A[:, 0]).exp(), A[:, 1]
    assert square.min().sqrt() >= 0.6 - 1e-6
    assert square.max().sqrt() <= 0.95 + 1e-6
    assert square.mean().item() == pytest.approx((0.36 + 0.9025) / 2, abs=0.01)
    assert square.var().item() == pytest.approx((0.9025 - 0.36) ** 2 / 12, rel=0.1)
    assert 0 < phase.min() < phase.max() <= 0.5
    assert phase.mean().item() == pytest.approx(0.25, abs=0.01)
    # The factor of the inputs is sqrt(1 - |lambda|^2), and B, C have the spreads 1 / (2 d) and 1 / n a part.
    torch.testing.assert_close(mixer.gamma.detach().double().exp() ** 2, 1 - square, rtol=1e-4, atol=1e-6)
    assert mixer.B.square().mean().item() == pytest.approx(1 / 4, rel=0.1)
    assert mixer.C.square().mean().item() == pytest.approx(1 / 4000, rel=0.1)


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


def test_is_a_bank_of_modes_with_inputs_held_or_struck():
    """The poles as lambda = exp(dt A): a zero-order hold is the same recurrence with other gains."""
    mixer = LRU.example().double()
    mixer.output = torch.nn.Identity()
    x = torch.randn(2, 20, 8, dtype=torch.float64)
    expected = mixer(x)[0]
    A = torch.view_as_complex(mixer.system().A.detach().contiguous())
    held = (A.exp() - 1) / A
    other = copy.deepcopy(mixer)
    other.choose_discretization("zoh")
    with torch.no_grad():
        other.B.copy_(torch.view_as_real(torch.view_as_complex(mixer.B.detach()) / held[:, None]))
    close(other(x)[0], expected, 1e-11, "hold")


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
