"""S4D: published kernels, a dense system as oracle, step sizes, and the parameters that train slowly."""

import math

import pytest
import torch

from hippodrome.inits.hippo import eigenvectors, legs, legs_normal
from hippodrome.inits.perturb import half, structured_ptd
from hippodrome.mixers.base import run_steps
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.mixers.s4d import S4D
from hippodrome.ops.discretize import DENSE, dense_zoh
from hippodrome.ops.fft_conv import fft_conv
from hippodrome.testing.mixers import prepared, tokens, warm_state
from hippodrome.testing.ops import close

GOLDEN = {
    "zoh": [0.38701121, 0.35034119, 0.30098495, 0.24402016, 0.18480892, 0.12845668],
    "bilinear": [0.3857666, 0.34987723, 0.3014449, 0.2453625, 0.18682839, 0.13082682],
}


def plain(discretization="zoh", d_state=4, init="lin"):
    """One channel with dt = 0.1, B = C = 1 and D = 0, which hands out what its system says."""
    mixer = S4D(1, d_state, init, discretization).double()
    with torch.no_grad():
        mixer.log_dt.fill_(math.log(0.1))
        mixer.B.copy_(torch.tensor([1.0, 0.0]).expand_as(mixer.B))
        mixer.C.copy_(torch.tensor([1.0, 0.0]).expand_as(mixer.C))
        mixer.D.zero_()
        # The initial poles were rounded to float32.
        mixer.A_imag.copy_(math.pi * torch.arange(d_state // 2, dtype=torch.float64))
        mixer.log_A_real.fill_(math.log(0.5))
    mixer.output = torch.nn.Identity()
    return mixer


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_published_kernel_in_every_view(rule):
    mixer = plain(rule)
    expected = torch.tensor(GOLDEN[rule], dtype=torch.float64)
    impulse = torch.zeros(1, 6, 1, dtype=torch.float64)
    impulse[0, 0] = 1
    for got in (mixer.kernel(6)[0], mixer(impulse)[0][0, :, 0], run_steps(mixer, impulse)[0][0, :, 0]):
        torch.testing.assert_close(got, expected, rtol=0, atol=5e-9)


def dense(mixer, dt):
    """One channel's system as real matrices, and its exact step over dt by a matrix exponential."""
    A, B, C, D = (x[0].double() for x in mixer.system())
    a = torch.block_diag(*(torch.tensor([[re, -im], [im, re]], dtype=torch.float64) for re, im in A.tolist()))
    n = a.shape[0]
    whole = torch.zeros(n + 1, n + 1, dtype=torch.float64)
    whole[:n, :n], whole[:n, n] = a, B.flatten()
    step = torch.matrix_exp(whole * dt)
    return step[:n, :n], step[:n, n], (C * torch.tensor([1.0, -1.0])).flatten(), D


@pytest.mark.parametrize("init", ["lin", "inv", "legs", "real", "ptd"])
def test_irregular_steps_are_the_dense_system_exactly(init):
    mixer = S4D(1, 8, init).double()
    mixer.output = torch.nn.Identity()
    x, dt = torch.randn(1, 25, 1, dtype=torch.float64), 0.3 + 2 * torch.rand(1, 25, dtype=torch.float64)
    size = mixer.log_dt.exp().item()
    state, expected = torch.zeros(8, dtype=torch.float64), []
    for t in range(25):
        a, b, c, d = dense(mixer, size * dt[0, t].item())
        state = a @ state + b * x[0, t, 0]
        expected.append(c @ state + d * x[0, t, 0])
    close(mixer(x, dt=dt)[0][0, :, 0], torch.stack(expected).detach(), 1e-9, init)


def test_a_step_of_one_is_no_step_at_all():
    mixer = S4D.example().double()
    x = torch.randn(2, 30, 8, dtype=torch.float64)
    y, state = mixer(x)
    y_one, state_one = mixer(x, dt=torch.ones(2, 30, dtype=torch.float64))
    close(y_one, y, 1e-11, "dt = 1")
    close(state_one.h, state.h, 1e-11, "dt = 1")


@pytest.mark.parametrize("discretization", ["zoh", "bilinear", "backward_euler", "forward_euler"])
def test_chunks_join_whether_or_not_they_have_steps(discretization):
    """One state serves calls with dt and calls without."""
    mixer = S4D(4, 6, discretization=discretization).double()
    x, dt = torch.randn(2, 40, 4, dtype=torch.float64), 0.5 + torch.rand(2, 40, dtype=torch.float64)
    dt[:, 20:] = 1
    whole, last = mixer(x, dt=dt)
    first, state = mixer(x[:, :20], dt=dt[:, :20])
    second, state = mixer(x[:, 20:], state)
    close(torch.cat([first, second], 1), whole, 1e-10, discretization)
    close(state.h, last.h, 1e-10, discretization)


def test_half_the_rate_is_twice_the_step():
    """Inputs held for two steps each, read at every second one, are the same system at dt = 2."""
    mixer = S4D.example().double()
    x = torch.randn(2, 20, 8, dtype=torch.float64)
    slow = mixer(x, dt=torch.full((2, 20), 2.0, dtype=torch.float64))[0]
    fast = mixer(x.repeat_interleave(2, 1))[0][:, 1::2]
    close(fast, slow, 1e-10, "resolution")


def test_resolution_identity():
    """K at twice the step is the sum of neighbours, to 1e-9 of its largest value."""
    mixer = S4D(3, 16).double()
    fine = mixer.kernel(400)
    with torch.no_grad():
        mixer.log_dt.add_(math.log(2))
    coarse = mixer.kernel(200)
    close(fine[:, 0::2] + fine[:, 1::2], coarse, 1e-9, "resolution")


def answers(n, length, dt, u):
    """What S4D-LegS with half its B, and LegS itself, say of u read by C = (1, 1, 1, 1, 0, ...)."""
    A, B = legs(n)
    Abar, Bbar = dense_zoh(A, B[:, None], torch.tensor(dt, dtype=torch.float64))
    x, kernel = Bbar[:, 0], []
    for _ in range(length):
        kernel.append(x[:4].sum())
        x = Abar @ x
    mixer = S4D(1, n, "legs").double()
    _, V = eigenvectors("legs", n)
    with torch.no_grad():
        poles, weight = legs_normal(n)
        mixer.log_dt.fill_(math.log(dt))
        mixer.log_A_real.copy_((-poles[:, 0]).log())
        mixer.A_imag.copy_(poles[:, 1])
        mixer.B.copy_(torch.stack([weight / 2, torch.zeros_like(weight)], -1))
        mixer.C.copy_(V[:4].sum(0))
    near, exact = mixer.kernel(length)[0].detach(), torch.stack(kernel)
    return fft_conv(u[None, :, None], near[None]), fft_conv(u[None, :, None], exact[None])


def test_it_approaches_s4_as_its_state_grows():
    """On a smooth input the outputs of S4D-LegS with half of B and of LegS differ by O(1 / n)."""
    length, dt = 2000, 0.005
    t = dt * torch.arange(length, dtype=torch.float64)
    u = torch.sin(t) * torch.exp(-0.1 * t)
    errors = []
    for n in (16, 32, 64, 128):
        near, exact = answers(n, length, dt, u)
        errors.append(((near - exact).abs().max() / exact.abs().max()).item())
    assert errors[0] == pytest.approx(0.05, rel=0.2)
    for n, few, many in zip((16, 32, 64), errors[:-1], errors[1:], strict=True):
        assert few / many > 1.8, n


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_ptd_is_the_perturbed_system(rule):
    """Its kernel is that of LegS + alpha P P^T with V^-1 B, eigenvectors turned so that B is positive."""
    n, alpha = 16, 0.2
    mixer = S4D(1, n, "ptd", rule, perturbation=alpha).double()
    A, B = legs(n)
    found = structured_ptd(n, alpha)
    poles, V, V_inv = (torch.view_as_complex(x.contiguous()) for x in half(found))
    b = V_inv @ B.to(V_inv)
    c = torch.randn(n, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(mixer.B[0, :, 0], b.abs(), rtol=1e-5)  # rounded to float32
        assert torch.allclose(mixer.A_imag[0], poles.imag, rtol=1e-5)
        assert torch.allclose(mixer.log_A_real[0].exp(), -poles.real, rtol=1e-5)
        mixer.A_imag.copy_(poles.imag)
        mixer.log_A_real.copy_((-poles.real).log())
        mixer.B[0, :, 0] = b.abs()
        mixer.C.copy_(torch.view_as_real((c.to(V) @ V) * b / b.abs()))
        step = mixer.log_dt.exp()[0]
    Abar, Bbar = DENSE[rule](A + found.E, B[:, None], step)
    expected = torch.stack([c @ torch.linalg.matrix_power(Abar, k) @ Bbar[:, 0] for k in range(30)])
    close(mixer.kernel(30)[0].detach(), expected, 1e-9, rule)


def test_a_perturbation_too_small_for_pairs_is_refused():
    with pytest.raises(ValueError, match="Perturb more"):
        S4D(4, 8, "ptd", perturbation=1e-3)
    with pytest.raises(ValueError, match="even"):
        S4D(4, 5, "ptd")


def test_a_debug_check_names_what_is_no_number():
    mixer = S4D.example()
    x, dt = torch.randn(2, 5, 8), torch.ones(2, 5)
    mixer.check_values(x, dt)
    for bad in (0.0, -1.0, math.nan, math.inf):
        dt[1, 3] = bad
        with pytest.raises(ValueError, match=r"S4D: step sizes dt must be positive and finite.*\(1, 3\)"):
            mixer.check_values(x, dt)
    x[0, 2, 4] = math.nan
    with pytest.raises(ValueError, match=r"S4D takes finite inputs; got nan at index \(0, 2, 4\)"):
        mixer.check_values(x)
    with pytest.raises(ValueError, match="no continuous time"):
        MinGRU.example().check_values(torch.randn(2, 5, 8), torch.ones(2, 5))


def test_stable_after_any_step_of_training():
    mixer = S4D.example()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert (mixer.system().A[..., 0] < 0).all()


def test_step_sizes_and_poles_and_input_weights_train_slowly_without_decay():
    mixer = S4D.example()
    (group,) = mixer.parameter_groups()
    slow = {id(p) for p in group.parameters}
    assert slow == {id(p) for p in (mixer.log_dt, mixer.log_A_real, mixer.A_imag, mixer.B)}
    assert group.max_lr == 1e-3
    assert group.decay is False


def test_autocast_leaves_the_state_in_float32():
    mixer = S4D.example()
    x = torch.randn(2, 70, 8)
    plainly = mixer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = mixer(x)
        _, after = mixer.step(x[:, 0], state)
    assert state.h.dtype == after.h.dtype == torch.float32
    close(state.h, plainly[1].h, 1e-6, "state under autocast")
    close(y.float(), plainly[0], 3e-2, "output under autocast")


def test_unknown_words_are_named():
    with pytest.raises(ValueError, match="no init 'legt'"):
        S4D(4, init="legt")
    with pytest.raises(ValueError, match="no discretization 'euler'"):
        S4D(4, discretization="euler")
    with pytest.raises(ValueError, match="even"):
        S4D(4, d_state=5)


@torch.no_grad()
@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_steps_all_of_another_size_are_the_recurrence_too(discretization: str) -> None:
    mixer = prepared(S4D(4, d_state=8, discretization=discretization))
    x, state = tokens(mixer, 2, 70), warm_state(mixer, 2)
    dt = torch.full((2, 70), 1.7, dtype=torch.float64)
    resets = torch.zeros(2, 70, dtype=torch.bool)
    resets[1, 33] = True
    for marks in (None, resets):
        y, last = run_steps(mixer, x, state, resets=marks, dt=dt)
        got, after = mixer(x, state, resets=marks, dt=dt)
        torch.testing.assert_close(got, y, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(after.h, last.h, rtol=1e-9, atol=1e-10)
