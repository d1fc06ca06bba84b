"""LSSL: the structured class and LegS in it, gates as step sizes, the rules, dense powers as oracle."""

import math

import pytest
import torch

from hippodrome.inits import hippo
from hippodrome.mixers.base import run_steps
from hippodrome.mixers.lssl import LSSL, _legs_factors
from hippodrome.testing.mixers import check_mixer
from hippodrome.testing.ops import close


def test_contract_of_the_fixed_form():
    """``example`` learns A; this is the form that does not."""
    check_mixer(LSSL(6, d_state=4, outputs=3))


@pytest.mark.parametrize("n", [1, 2, 7, 64, 256])
def test_legs_is_in_the_structured_class(n):
    left, diagonal, right = _legs_factors(n)
    T = torch.eye(n, dtype=torch.float64) - torch.diag(torch.ones(n - 1, dtype=torch.float64), -1)
    A = left[:, None] * (torch.diag(diagonal) + torch.linalg.inv(T)) * right
    close(A, hippo.legs(n)[0], 1e-15, "LegS")


def test_a_trained_layer_starts_as_the_fixed_one():
    fixed, trained = LSSL(3, 16).double(), LSSL(3, 16, trainable=True).double()
    with torch.no_grad():
        close(trained.matrix(), hippo.legs(16)[0].expand(3, -1, -1), 1e-6, "A")
        close(fixed.matrix(), hippo.legs(16)[0].expand(3, -1, -1), 1e-6, "A")


def test_a_gate_is_a_step_size():
    """One state with A = -1 under backward Euler at dt = exp(z): (1 - sigmoid(z)) x + sigmoid(z) u."""
    mixer = LSSL(1, d_state=1, alpha=1.0).double()
    mixer.log_dt.fill_(0.7)
    state = mixer.init_state(1)._replace(x=torch.full((1, 1, 1), 0.5, dtype=torch.float64))
    u = torch.full((1, 1), 2.0, dtype=torch.float64)
    gate = torch.sigmoid(torch.tensor(0.7, dtype=torch.float64))
    for after in (mixer.step(u, state)[1], mixer(u[:, None], state)[1]):
        assert after.x.item() == pytest.approx(1.50228166, abs=5e-9)
        close(after.x, ((1 - gate) * 0.5 + gate * 2).view(1, 1, 1), 1e-15, "gate")


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_rules_against_their_formula(alpha):
    mixer = LSSL(2, d_state=5, alpha=alpha).double()
    A, B = mixer.A, mixer.B
    for i, dt in enumerate(mixer.log_dt.exp()):
        one = torch.eye(5, dtype=torch.float64)
        inverse = torch.linalg.inv(one - alpha * dt * A)
        Abar, Bbar = (x[i] for x in mixer.discrete())
        close(Abar, inverse @ (one + (1 - alpha) * dt * A), 1e-12, "Abar")
        close(Bbar, dt * inverse @ B, 1e-12, "Bbar")


def test_is_a_convolution_with_its_kernel():
    """Every output of every channel, by dense powers of A one at a time, then the map that mixes them."""
    mixer = LSSL(3, d_state=6, outputs=2).double()
    x = torch.randn(2, 100, 3, dtype=torch.float64)
    with torch.no_grad():
        Abar, Bbar = mixer.discrete()
        taps, power = [], Bbar[..., None]
        for _ in range(100):
            taps.append((mixer.C @ power)[..., 0])
            power = Abar @ power
        kernel = torch.stack(taps)  # t d m
        expected = x[..., None] * mixer.D
        for t in range(100):
            expected[:, t] += (kernel[: t + 1].flip(0) * x[:, : t + 1, :, None]).sum(1)
        expected = mixer.linear(torch.nn.functional.gelu(expected).flatten(-2))
        close(mixer(x)[0], expected, 1e-10, "chunks")
        close(run_steps(mixer, x)[0], expected, 1e-10, "steps")


def test_time_scales_are_spread():
    sizes = LSSL(2000, d_state=1, dt_min=1e-3, dt_max=1e-1).step_size()
    assert sizes.min() >= 0.999e-3
    assert sizes.max() <= 1.001e-1
    assert sizes.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.15)


def test_what_learns():
    fixed, trained = LSSL(4, 4), LSSL.example()
    assert {name for name, _ in fixed.named_parameters()} == {"C", "D", "linear.weight", "linear.bias"}
    assert fixed.parameter_groups() == []
    A, rest = trained.parameter_groups()
    assert (A.max_lr, rest.max_lr, A.decay, rest.decay) == (1e-4, 1e-3, False, False)
    assert {id(p) for p in rest.parameters} == {id(trained.log_dt), id(trained.B)}
    assert len(A.parameters) == 6


def test_what_cannot_be_built_is_named():
    with pytest.raises(ValueError, match="got d_state 0 and outputs 1"):
        LSSL(4, d_state=0)
    with pytest.raises(ValueError, match=r"0 <= alpha <= 1; got 1\.5"):
        LSSL(4, alpha=1.5)
