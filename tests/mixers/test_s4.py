"""S4: published kernels, dense powers as oracle, stability, copies and measures, steps of their own."""

import math

import pytest
import torch

from hippodrome.inits import hippo
from hippodrome.mixers.base import run_steps
from hippodrome.mixers.s4 import S4
from hippodrome.ops.dense_lti import dense_lti
from hippodrome.ops.discretize import dense_bilinear, dense_zoh
from hippodrome.ops.dplr_kernel import dense
from hippodrome.testing.mixers import tokens
from hippodrome.testing.ops import close

BILINEAR = [0.5470522, 0.22343937, 0.06399393, -0.00459942, -0.02562155, -0.02392916]
ZOH = [0.52993287, 0.22122166, 0.06768143, 0.00057333, -0.02090998, -0.02035102]


def impulse(length):
    x = torch.zeros(1, length, 1, dtype=torch.float64)
    x[0, 0] = 1
    return x


def plain(d_state=4, dt=0.1, **options):
    """One channel in float64 with the numbers of its measure unrounded, D = 0 and no output map."""
    mixer = S4(1, d_state, **options).double()
    mixer.output = torch.nn.Identity()
    normal = hippo.nplr(options.get("measure", "legs"), d_state)
    with torch.no_grad():
        mixer.log_dt.fill_(math.log(dt))
        mixer.log_A_real.copy_((-normal.poles[..., 0]).clamp_min(1e-4).log()[None])
        mixer.A_imag.copy_(normal.poles[..., 1][None])
        mixer.P.copy_(normal.P[None])
        mixer.B.copy_(normal.B[None])
        mixer.D.zero_()
    return mixer


def read_all_ones(mixer):
    """C of the read-out that adds up the state in HiPPO's own basis."""
    V = torch.view_as_complex(hippo.eigenvectors("legs", mixer.C.shape[1] * 2)[1])
    with torch.no_grad():
        mixer.C.copy_(torch.view_as_real(V.sum(0))[None])
    return mixer


def test_published_kernel_of_four_states_in_every_view():
    mixer, expected = read_all_ones(plain()), torch.tensor(BILINEAR, dtype=torch.float64)
    views = {
        "kernel": mixer.kernel(6)[0],
        "forward": mixer(impulse(6))[0][0, :, 0],
        "step": run_steps(mixer, impulse(6))[0][0, :, 0],
    }
    for name, got in views.items():
        torch.testing.assert_close(got, expected, rtol=0, atol=5e-9, msg=name)


@pytest.mark.parametrize(("rule", "expected"), [(dense_bilinear, BILINEAR), (dense_zoh, ZOH)])
def test_published_kernels_of_the_dense_system(rule, expected):
    A, B = hippo.legs(4)
    Abar, Bbar = rule(A, B[:, None], torch.tensor(0.1, dtype=torch.float64))
    y, _ = dense_lti(impulse(6), Abar[None], Bbar.T, torch.ones(1, 1, 4, dtype=torch.float64))
    torch.testing.assert_close(y[0, :, 0, 0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-9)


def test_is_hippo_in_another_basis():
    """Its state, turned back by the eigenvectors, is the state of the dense LegS system itself."""
    mixer, x = plain(16, 0.05), torch.randn(1, 40, 1, dtype=torch.float64)
    A, B = hippo.legs(16)
    Abar, Bbar = dense_bilinear(A, B[:, None], torch.tensor(0.05, dtype=torch.float64))
    _, expected = dense_lti(x, Abar[None], Bbar.T, torch.ones(1, 1, 16, dtype=torch.float64))
    _, state = mixer(x)
    V = torch.view_as_complex(hippo.eigenvectors("legs", 16)[1])
    back = 2 * (V @ torch.view_as_complex(state.x[0, 0].detach())).real
    close(back, expected[0, 0], 1e-9, "basis")


@pytest.mark.parametrize("length", [1, 2, 33, 128])
@pytest.mark.parametrize("options", [{}, {"measure": "legt+fout", "n_ssm": 4}, {"unconstrained": True}])
def test_kernel_is_the_answer_to_an_impulse(options, length):
    """Cauchy sums against the chunks and against one step after the other, with C that training may reach."""
    mixer = S4(4, 8, **options).double()
    mixer.output = torch.nn.Identity()
    with torch.no_grad():
        mixer.D.zero_()
        mixer.P.add_(0.1 * torch.randn_like(mixer.P))
        x = impulse(length).expand(1, length, 4)
        kernel = mixer.kernel(length).T[None]
        close(kernel, mixer(x)[0], 1e-9, "forward")
        close(kernel, run_steps(mixer, x)[0], 1e-9, "step")


def poles_of(mixer):
    poles, P, Q, *_ = mixer.system(torch.float64)
    return torch.linalg.eigvals(dense.matrix(poles, P, Q)).real


def test_stable_whatever_the_low_rank_part():
    mixer = S4(4, 16, n_ssm=4)
    with torch.no_grad():
        for parameter in (mixer.P, mixer.log_A_real, mixer.A_imag):
            parameter.add_(3 * torch.randn_like(parameter))
        assert (poles_of(mixer) < 0).all()
        assert (torch.linalg.eigvals(mixer.discrete()[0]).abs() < 1).all()


def test_stable_after_a_hundred_steps_of_an_optimizer():
    mixer = S4(4, 8, dt_min=0.01)
    optimizer = torch.optim.Adam(mixer.parameters(), lr=0.05)
    x = tokens(mixer, 2, 30, torch.float32)
    before = mixer.P.detach().clone()
    for _ in range(100):
        # A loss that only growth can please: the square of the last outputs, as large as possible.
        loss = -mixer(x)[0][:, -1].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (mixer.P - before).abs().max() > 0.1
    assert (poles_of(mixer) < 0).all()


def test_the_unconstrained_form_can_be_unstable():
    """What the shared factor is for: with Q = -P the same numbers give an A that grows."""
    mixer = S4(2, 8, unconstrained=True)
    with torch.no_grad():
        assert (poles_of(mixer) < 0).all()
        mixer.Q.neg_()
        assert (poles_of(mixer) > 0).any()


def test_starts_as_its_measures_and_shares_copies_in_turn():
    mixer = S4(8, 8, "legs+fout", n_ssm=4)
    poles, P, Q, B, *_ = mixer.system()
    assert torch.equal(P, Q)
    for i in range(8):
        normal = hippo.nplr("legs" if i % 4 < 2 else "fout", 8)
        close(P[i].detach(), normal.P, 1e-6, f"channel {i}")
        close(B[i].detach(), normal.B, 1e-6, f"channel {i}")
        close(poles[i, :, 1].detach(), normal.poles[:, 1], 1e-6, f"channel {i}")
    assert S4(4, 8, "legs+legt", n_ssm=2).P.shape == (2, 2, 4, 2)


@pytest.mark.parametrize("measure", ["legs", "legt"])
def test_irregular_steps_are_the_dense_system_exactly(measure):
    mixer = plain(8, 0.1, measure=measure)
    x, dt = torch.randn(1, 25, 1, dtype=torch.float64), 0.3 + 2 * torch.rand(1, 25, dtype=torch.float64)
    poles, P, Q, B, C, _ = mixer.system()
    A, row = dense.matrix(poles, P, Q)[0], dense.output(C)[0]
    state, expected = torch.zeros(8, dtype=torch.float64), []
    for t in range(25):
        Abar, Bbar = dense_bilinear(A, B[0].reshape(-1, 1), 0.1 * dt[0, t])
        state = Abar @ state + Bbar[:, 0] * x[0, t, 0]
        expected.append(row @ state)
    close(mixer(x, dt=dt)[0][0, :, 0].detach(), torch.stack(expected).detach(), 1e-9, measure)


def test_one_state_serves_calls_with_steps_and_without():
    mixer = S4.example().double()
    x, dt = torch.randn(2, 40, 8, dtype=torch.float64), 0.5 + torch.rand(2, 40, dtype=torch.float64)
    resets = torch.rand(2, 40) < 0.1
    dt[:, 20:] = 1
    whole, last = mixer(x, dt=dt, resets=resets)
    first, state = mixer(x[:, :20], dt=dt[:, :20], resets=resets[:, :20])
    second, state = mixer(x[:, 20:], state, resets=resets[:, 20:])
    close(torch.cat([first, second], 1), whole, 1e-9, "chunks")
    close(state.x, last.x, 1e-9, "state")


@pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])
def test_float32_over_a_long_sequence(measure):
    """64 states and steps from 1e-4 to 1e-1: 2000 tokens in float32 stay with float64."""
    mixer = S4(8, 64, measure, dt_min=1e-4)
    with torch.no_grad():
        mixer.log_dt.copy_(torch.linspace(math.log(1e-4), math.log(1e-1), 8))
        mixer.output = torch.nn.Identity()
        x = tokens(mixer, 1, 2000, torch.float32)
        y, state = mixer(x)
        expected, last = mixer.double()(x.double())
    close(y, expected, 2e-5, "outputs")
    close(state.x, last.x, 2e-5, "state")


def test_system_trains_slowly_without_decay():
    for mixer in (S4.example(), S4(4, 4, unconstrained=True)):
        (group,) = mixer.parameter_groups()
        slow = {
            id(p) for name, p in mixer.named_parameters() if name.split(".")[0] not in ("C", "D", "output")
        }
        assert {id(p) for p in group.parameters} == slow
        assert group.max_lr == 1e-3
        assert group.decay is False


def test_what_cannot_be_built_is_named():
    with pytest.raises(ValueError, match="no measure 'lmu'"):
        S4(4, measure="legs+lmu", n_ssm=2)
    with pytest.raises(ValueError, match="even; got 5"):
        S4(4, d_state=5)
    with pytest.raises(ValueError, match="multiple of that; got 1"):
        S4(4, measure="legs+fout")
    with pytest.raises(ValueError, match="n_ssm 3 and d_model 4"):
        S4(4, n_ssm=3)
