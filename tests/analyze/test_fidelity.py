"""S4D-LegS and PTD against the dense HiPPO system: spikes where they are known to be, the bound kept."""

import math

import pytest
import torch

from hippodrome.analyze.fidelity import fidelity, under_noise


@pytest.mark.parametrize("n", [4, 8, 32, 64])
def test_the_amplification_of_s4d_is_the_closed_form(n: int) -> None:
    found = fidelity(n)
    s, k = 1j * found.omega[:, None], torch.arange(n, dtype=torch.float64)
    rho = torch.prod((s - k) / (s + k + 1), 1)
    closed = 1 / (1 + rho).abs()
    assert torch.allclose(found.amplified["S4D-LegS"], closed, rtol=1e-6)
    ptd = 1 / (1 - 0.05 * (1 - rho)).abs()
    assert torch.allclose(found.amplified["PTD"], ptd, rtol=1e-6)


@pytest.mark.parametrize(("n", "peak", "place"), [(8, 13.8, 19.87), (32, 208, 325.4)])
def test_s4d_spikes_where_it_is_known_to(n: int, peak: float, place: float) -> None:
    found = fidelity(n)
    amplified = found.amplified["S4D-LegS"]
    assert math.isclose(float(amplified.max()), peak, rel_tol=5e-3)
    assert math.isclose(float(found.omega[amplified.argmax()]), place, rel_tol=1e-3)


def test_the_spike_at_64_is_its_highest_eigenvalue() -> None:
    found = fidelity(64)
    assert math.isclose(found.spike, 1303.273843, abs_tol=1e-5)
    amplified = found.amplified["S4D-LegS"]
    assert found.omega[amplified.argmax()] == pytest.approx(found.spike, rel=1e-6)
    assert amplified.max() > 791  # what a grid that steps over the peak has found


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.3])
def test_ptd_stays_within_its_bound_at_every_frequency(alpha: float) -> None:
    found = fidelity(64, alpha)
    error = found.error["PTD"]
    assert error.max() <= found.bound * (1 + 1e-6)
    assert error.max() > 0.9 * found.bound  # and the bound is no idle one
    assert found.bound == alpha / (1 - alpha)


def test_the_same_in_time_and_discretized() -> None:
    found = under_noise(64)
    assert found.gain["S4D-LegS"] > 500
    assert abs(found.gain["PTD"] - 1) < 0.12
    noise = {name: found.noisy[name] - found.clean[name] for name in found.clean}
    assert noise["S4D-LegS"].abs().max() > 100 * noise["PTD"].abs().max()
    # The slow part comes out alike.
    assert (found.clean["PTD"] - found.clean["HiPPO"]).norm() < 0.12 * found.clean["HiPPO"].norm()


def test_steady_means_that_a_run_from_the_past_ends_there() -> None:
    from hippodrome.analyze.fidelity import _steady
    from hippodrome.inits import hippo
    from hippodrome.ops.discretize import dense_bilinear

    A, B = hippo.legs(6)
    A, B = dense_bilinear(A, B[:, None], torch.tensor(0.05, dtype=torch.float64))
    B = B[:, 0]
    C = torch.ones(6, dtype=torch.float64)
    x = torch.zeros(6, dtype=torch.float64)
    outputs = []
    for k in range(-2000, 20):
        x = A @ x + B * math.cos(0.3 * k)
        outputs.append(C @ x)
    assert torch.allclose(_steady(A, B, C, 0.3, 20), torch.stack(outputs[-20:]), rtol=1e-9, atol=1e-12)


def test_bad_input_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="alpha"):
        fidelity(8, 1.0)
    with pytest.raises(ValueError, match="even"):
        fidelity(7)
    with pytest.raises(ValueError, match="3 steps"):
        under_noise(8, samples=2)
