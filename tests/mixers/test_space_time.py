"""SpaceTime: published values, the closed loop step by step, and autoregressions rolled out exactly."""

import pytest
import torch

from hippodrome.analyze.identify import discrete_system
from hippodrome.mixers.base import run_steps
from hippodrome.mixers.space_time import SpaceTime, SpaceTimeState
from hippodrome.testing.ops import close


def plain(a, b, c, k, normalize=False):
    """One channel that hands out what its system says."""
    mixer = SpaceTime(1, len(a), normalize=normalize, feedback=True, linear=False).double()
    with torch.no_grad():
        for name, row in {"a": a, "b": b, "c": c, "k": k}.items():
            getattr(mixer, name).copy_(torch.tensor([row], dtype=torch.float64))
    return mixer


def column(values):
    return torch.tensor(values, dtype=torch.float64)


def test_golden_kernel_in_every_view():
    mixer = plain([0.5, 0.25], [1.0, 0.0], [1.0, 1.0], [0.3, -0.2])
    impulse = torch.zeros(1, 6, 1, dtype=torch.float64)
    impulse[0, 0] = 1
    expected = column([1, 1, 0.75, 0.6875, 0.546875, 0.48046875])
    for got in (mixer.kernel(6)[0], mixer(impulse)[0][0, :, 0], run_steps(mixer, impulse)[0][0, :, 0]):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-14)


def test_golden_closed_loop():
    mixer = plain([0.5, 0.25], [1.0, 0.0], [1.0, 1.0], [0.3, -0.2])
    y, u = mixer.closed_loop(SpaceTimeState(column([[[1.0, 2.0]]])), 5)
    torch.testing.assert_close(y[0, :, 0], column([3, 2.4, 1.995, 1.63725, 1.3493625]), rtol=0, atol=1e-14)
    torch.testing.assert_close(
        u[0, :, 0], column([-0.1, -0.03, -0.039, -0.0282, -0.024285]), rtol=0, atol=1e-14
    )


def test_an_autoregression_without_noise_is_rolled_out_exactly():
    """AR(2) with complex poles at 0.98: b = e_1, a = 0 and c = k = phi; 40 steps seen, 60 forecast."""
    phi = [1.8, -0.9604]
    series = [1.0, 1.7]
    for _ in range(98):
        series.append(phi[0] * series[-1] + phi[1] * series[-2])
    mixer = plain([0.0, 0.0], [1.0, 0.0], phi, phi)
    seen = column(series[:40])[None, :, None]
    _, state = mixer(seen)
    y, u = mixer.closed_loop(state, 60)
    for got in (y, u):
        close(got[0, :, 0], column(series[40:]), 1e-11, "roll-out")
    close(y[0, 0, 0], phi[0] * seen[0, -1, 0] + phi[1] * seen[0, -2, 0], 1e-12, "first step")


@pytest.mark.parametrize("normalize", [True, False])
def test_the_closed_loop_is_the_mixer_fed_with_its_own_prediction(normalize):
    torch.manual_seed(0)
    mixer = SpaceTime(6, 5, n_kernels=3, normalize=normalize, feedback=True).double()
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    last, state = mixer(x)
    y, u = mixer.closed_loop(state, 12)
    close(y[:, 0], last[:, -1], 1e-12, "h = 0 says what the last token said")
    close(u[:, 0], mixer.next_inputs(x)[:, -1], 1e-12, "predicted inputs in parallel")
    for h in range(1, 12):
        out, state = mixer.step(u[:, h - 1], state)
        close(y[:, h], out, 1e-10, f"step {h}")


def test_weights_are_normalized_alike_and_keep_powers_bounded():
    torch.manual_seed(0)
    mixer = SpaceTime(4, 16, feedback=True).double()
    with torch.no_grad():
        mixer.a.mul_(50)
        mixer.b[0] = 1e-7
    one = mixer.system()
    for row in (one.a, one.b[1:], one.c, one.k):
        torch.testing.assert_close(row.abs().sum(-1), torch.ones(len(row), dtype=torch.float64))
    assert torch.equal(one.b[0], mixer.b[0])
    assert torch.linalg.eigvals(one.matrix()).abs().max() <= 1 + 1e-12
    assert mixer.kernel(5000).abs().max() <= 1 + 1e-9


def test_a_kernel_serves_the_channels_of_its_heads():
    mixer = SpaceTime(8, 5, n_kernels=2)
    rows = mixer.kernel(20)
    assert all(torch.equal(rows[i], rows[4 * (i // 4)]) for i in range(8))
    assert not torch.equal(rows[0], rows[4])


def test_analysis_finds_its_system():
    torch.manual_seed(0)
    mixer = SpaceTime(4, 5).double()
    found = discrete_system(mixer)
    assert found.per_channel
    kernel = found.system.kernel(30)[:, :, 0, 0]
    kernel[:, 0] -= mixer.D.detach()
    close(kernel, mixer.kernel(30).detach(), 1e-8, "kernel")


def test_what_has_no_feedback_runs_on_nothing():
    mixer = SpaceTime.example()
    with pytest.raises(ValueError, match="feedback=True"):
        mixer.closed_loop(mixer.init_state(1), 3)
    with pytest.raises(ValueError, match="horizon=0"):
        SpaceTime(4, 3, feedback=True).closed_loop(SpaceTimeState(torch.zeros(1, 4, 3)), 0)
    with pytest.raises(ValueError, match="n_kernels must divide d_model; got kernel_dim 3, n_kernels 3"):
        SpaceTime(4, 3, n_kernels=3)


def test_weights_are_of_sum_one_always_or_only_at_the_start() -> None:
    for normalize in (True, False):
        mixer = SpaceTime(4, kernel_dim=6, feedback=True, normalize=normalize)
        for part in mixer.system():
            torch.testing.assert_close(part.abs().sum(-1), torch.ones(4))
        with torch.no_grad():
            mixer.k.mul_(3)
        sums = mixer.system().k.abs().sum(-1)
        torch.testing.assert_close(sums, torch.full((4,), 1.0 if normalize else 3.0))
