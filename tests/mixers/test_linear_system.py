"""The linear system: an oracle of its own, the gate it is with one state, sampling, what is learned."""

import copy
import math

import pytest
import torch

from hippodrome.inits import hippo
from hippodrome.mixers.linear_system import LinearSystem
from hippodrome.ops.discretize import DENSE
from hippodrome.testing.mixers import check_mixer
from hippodrome.testing.ops import close


def gate():
    """x' = -x + u under backward Euler with a step of 1, y = x."""
    mixer = LinearSystem(1, 1, discretization="backward_euler", step_size=1.0).double()
    with torch.no_grad():
        for tensor, value in ((mixer.A, -1), (mixer.B, 1), (mixer.C, 1), (mixer.D, 0)):
            tensor.fill_(value)
    return mixer


def test_gating_lemma():
    """With one state and dt = exp(z) it is a gate: x = (1 - sigmoid(z)) x + sigmoid(z) u."""
    mixer = gate()
    z, u = torch.randn(2, 3, 40, dtype=torch.float64)
    x, expected = torch.zeros(3, dtype=torch.float64), []
    for t in range(40):
        g = torch.sigmoid(z[:, t])
        x = (1 - g) * x + g * u[:, t]
        expected.append(x)
    y, _ = mixer(u[..., None], dt=z.exp())
    close(y[..., 0], torch.stack(expected, 1), 1e-12, "gate")


def test_gating_lemma_in_numbers():
    mixer = gate()
    state = mixer.init_state(1)._replace(x=torch.tensor([[0.5]], dtype=torch.float64))
    u, dt = torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([math.exp(0.7)], dtype=torch.float64)
    assert mixer.step(u, state, dt_t=dt)[0].item() == pytest.approx(1.50228166, abs=5e-9)


@pytest.mark.parametrize("init", [*hippo.MEASURES, "random"])
def test_irregular_steps_are_the_exponential_exactly(init):
    """Zero-order hold against exp and the integral by a series of its own."""
    mixer = LinearSystem(2, 6, init, step_size=0.05).double()
    x, dt = torch.randn(1, 15, 2, dtype=torch.float64), 0.3 + 2 * torch.rand(1, 15, dtype=torch.float64)
    A, B, C, D = (z.detach() for z in (mixer.A, mixer.B, mixer.C, mixer.D))
    state, expected = torch.zeros(6, dtype=torch.float64), []
    for t in range(15):
        size = mixer.log_dt.exp().item() * dt[0, t].item()
        term, mean = torch.eye(6, dtype=torch.float64), torch.zeros(6, 6, dtype=torch.float64)
        for k in range(1, 60):
            mean, term = mean + size * term / k, size * (A @ term) / k
        # mean = sum of A^(k-1) size^k / k!, so that exp(size A) = 1 + A mean.
        state = state + A @ (mean @ state) + mean @ (B @ x[0, t])
        expected.append(C @ state + D @ x[0, t])
    close(mixer(x, dt=dt)[0][0], torch.stack(expected), 1e-9, init)


def test_half_the_rate_is_twice_the_step():
    """Inputs held for two steps each, read at every second one, are the same system at dt = 2."""
    mixer = LinearSystem.example().double()
    x = torch.randn(2, 20, 8, dtype=torch.float64)
    slow = mixer(x, dt=torch.full((2, 20), 2.0, dtype=torch.float64))[0]
    fast = mixer(x.repeat_interleave(2, 1))[0][:, 1::2]
    close(fast, slow, 1e-10, "resolution")


@pytest.mark.parametrize("rule", DENSE)
def test_convolution_with_its_impulse_response(rule):
    mixer = LinearSystem(2, 5, discretization=rule, step_size=0.1).double()
    x = torch.randn(1, 30, 2, dtype=torch.float64)
    impulses = torch.zeros(2, 30, 2, dtype=torch.float64)
    impulses[0, 0, 0] = impulses[1, 0, 1] = 1
    with torch.no_grad():
        response, y = mixer(impulses)[0], mixer(x)[0]
    expected = torch.zeros(30, 2, dtype=torch.float64)
    for t in range(30):
        for s in range(t + 1):
            expected[t] += x[0, s] @ response[:, t - s]
    close(y[0], expected, 1e-10, rule)


def test_it_is_linear_in_input_and_state():
    mixer = LinearSystem.example().double()
    a, b = torch.randn(2, 2, 20, 8, dtype=torch.float64)
    (y_a, last_a), (y_b, _) = mixer(a), mixer(b)
    close(mixer(a - 3 * b)[0], y_a - 3 * y_b, 1e-11, "inputs")
    rest = mixer(torch.zeros_like(a), last_a)[0]
    close(mixer(b, last_a)[0], y_b + rest, 1e-11, "state")


@pytest.mark.parametrize("init", [*hippo.MEASURES, "random"])
def test_every_start_is_stable(init):
    A = LinearSystem(4, 16, init).A.detach().double()
    assert torch.linalg.eigvals(A).real.max() < (1e-6 if init == "fout" else 0)


def test_readout_alone_learns():
    mixer = LinearSystem(4, 6, learn="readout")
    assert {name for name, _ in mixer.named_parameters()} == {"C", "D"}
    assert {name for name, _ in mixer.named_buffers()} == {"A", "B", "log_dt"}
    assert mixer.parameter_groups() == []
    check_mixer(mixer)


def test_matrices_and_step_train_slowly_without_decay():
    mixer = LinearSystem.example()
    (group,) = mixer.parameter_groups()
    assert {id(p) for p in group.parameters} == {id(p) for p in (mixer.A, mixer.B, mixer.log_dt)}
    assert group.max_lr == 1e-3
    assert group.decay is False


@torch.no_grad()
def test_a_step_sees_every_change_of_the_parameters():
    """What is kept from token to token is made anew once a parameter is another."""
    mixer = LinearSystem.example().double()
    x, state = torch.randn(1, 8, dtype=torch.float64), mixer.init_state(1)
    mixer.step(x, state)
    for parameter in mixer.parameters():
        parameter.add_(0.1)
        y, _ = mixer.step(x, state)
        fresh = copy.deepcopy(mixer)
        assert torch.equal(y, fresh.step(x, state)[0])
        assert torch.equal(y, fresh(x[:, None], state)[0][:, 0])


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="no init 'legendre'"):
        LinearSystem(4, init="legendre")
    with pytest.raises(ValueError, match="no discretization 'euler'"):
        LinearSystem(4, discretization="euler")
    with pytest.raises(ValueError, match="no learn 'A'"):
        LinearSystem(4, learn="A")
    with pytest.raises(ValueError, match="positive length of time"):
        LinearSystem(4, step_size=0.0)
