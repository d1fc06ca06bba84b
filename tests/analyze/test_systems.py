"""Frequency responses, kernels and the system inside each mixer, against one another."""

import pytest
import torch

from hippodrome import config
from hippodrome.analyze import systems
from hippodrome.analyze.identify import discrete_system
from hippodrome.analyze.systems import StateSpace
from hippodrome.inits import hippo

LINEAR = ["s4d", "lru", "s5", "dss", "linear_system", "lmu"]
PROBED = ["s4"]  # LSSL has several outputs a channel, which the shape checks of a test run forbid


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_the_transform_of_the_kernel_is_the_frequency_response() -> None:
    mixer = config.find("mixers", "s4d")(3, d_state=16, dt_min=1e-2)
    system = discrete_system(mixer).system
    length = 1 << 15
    omega = systems.frequencies_of(length)
    for form in (system, system.dense()):
        found = systems.response_of_kernel(form.kernel(length).movedim(1, 0)).movedim(0, 1)
        part = slice(None, None, 331)
        direct = form.response(omega[part])
        assert (direct - found[:, part]).abs().max() < 1e-9 * found.abs().max()


@pytest.mark.parametrize("kind", LINEAR)
def test_what_is_found_in_a_mixer_runs_as_its_recurrence_does(kind: str) -> None:
    """The system's own run equals the mixer with its output map taken off."""
    mixer = config.find("mixers", kind).example().double().eval()
    found = discrete_system(mixer)
    u = torch.randn(12, mixer.d_model, dtype=torch.float64)
    if hasattr(mixer, "readout"):
        mixer.__dict__["readout"] = lambda y: y
    if isinstance(getattr(mixer, "activation", None), str):
        mixer.activation = "none"
    silent = mixer(torch.zeros_like(u)[None])[0][0]
    expected = mixer(u[None])[0][0] - silent
    dense = found.system.dense()
    if found.per_channel:
        outputs = [
            StateSpace(*(part[i] for part in dense)).run(u[:, i : i + 1])[:, 0] for i in range(mixer.d_model)
        ]
        run = torch.stack(outputs, -1)
    else:
        run = dense.run(u)
    assert torch.allclose(run, expected, rtol=1e-9, atol=1e-9 * float(expected.detach().abs().max()))


def test_probing_an_engine_finds_what_the_engine_tells() -> None:
    from hippodrome.analyze.identify import _probe

    mixer = config.find("mixers", "s4d").example().double().eval().requires_grad_(False)
    told = discrete_system(mixer).system.kernel(40)
    mixer.__dict__["readout"] = lambda y: y
    probed = _probe(mixer)
    assert probed.per_channel
    assert torch.allclose(probed.system.kernel(40), told, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["mamba", "gru", "hippo_legs", "attention", "min_gru", "liquid_s4"])
def test_what_is_no_fixed_linear_system_says_so(kind: str) -> None:
    with pytest.raises(ValueError, match="system"):
        discrete_system(config.find("mixers", kind).example())


@pytest.mark.parametrize("kind", PROBED)
def test_dense_banks_have_one_stable_system_for_each_channel(kind: str) -> None:
    mixer = config.find("mixers", kind).example()
    found = discrete_system(mixer)
    assert found.per_channel
    assert found.system.A.shape[0] == mixer.d_model
    assert found.system.poles().norm(dim=-1).max() < 1


def test_a_readout_of_a_state_that_is_overwritten_is_kept() -> None:
    """A shift register's output is what it forgets: A cannot be undone, and C takes the old state."""
    from hippodrome.analyze.identify import _separate

    A = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    B = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    system = _separate(A, B, torch.tensor([[0.0, 1.0]]).double(), torch.zeros(1, 1).double())
    assert system.kernel(5).flatten().tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]


def test_fout_as_a_delay_is_flat_in_a_bode_plot() -> None:
    A, B = hippo.fout(32)
    omega = torch.logspace(-2, 3, 200, dtype=torch.float64)
    response = systems.continuous_response(A, B[:, None], B[None], omega, -torch.ones(1, 1).double())
    plot = systems.bode(response)
    assert plot.decibels.abs().max() < 1e-9
    slow = omega < 1  # there the phase is that of a delay of 1
    degrees = plot.degrees[slow, 0, 0]
    assert torch.allclose(degrees, -torch.rad2deg(omega[slow]), atol=0.5)


def test_the_phase_of_a_delay_is_unwrapped() -> None:
    omega = torch.linspace(0, 3, 50, dtype=torch.float64)
    turn = torch.stack([torch.cos(7 * omega), -torch.sin(7 * omega)], -1)
    assert torch.allclose(systems.bode(turn).degrees, -torch.rad2deg(7 * omega), rtol=1e-9, atol=1e-9)
