"""S5: where its numbers start, conjugate symmetry, steps and rates, episodes in one row, its gates."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.inits import hippo
from hippodrome.inits.spectrum import hippo_blocks
from hippodrome.mixers import _lti
from hippodrome.mixers.base import run_steps
from hippodrome.mixers.s5 import S5
from hippodrome.testing.mixers import check_mixer
from hippodrome.testing.ops import close


def plain(*arguments, **keywords):
    """In float64, with what follows the system left away."""
    mixer = S5(*arguments, activation="gelu", **keywords).double()
    mixer.output = torch.nn.Identity()
    return mixer


def test_poles_are_those_of_hippo_blocks():
    """P = 8 in J = 2 blocks: the printed eigenvalues, up to conjugation, twice."""
    poles = S5(3, d_state=8, blocks=2).A.detach()
    torch.testing.assert_close(poles[:, 0], torch.full((4,), -0.5))
    expected = torch.tensor([0.55650112, 4.60329301])
    torch.testing.assert_close(poles[:, 1].abs().view(2, 2).sort(1)[0], expected.expand(2, 2))


@pytest.mark.parametrize("init", ["hippo", "ptd"])
def test_what_it_computes_is_the_dense_system(init):
    """The response of a block's first state to B = 1, against exponentials of the matrix."""
    torch.set_default_dtype(torch.float64)
    try:
        mixer = plain(1, d_state=16, blocks=2, init=init, perturbation=0.2, dt_min=0.1, dt_max=0.1)
    finally:
        torch.set_default_dtype(torch.float32)
    A, P = hippo.legs(8)[0], hippo.low_rank("legs", 8)
    A = A + (0.2 if init == "ptd" else 1.0) * P @ P.T
    parts = hippo_blocks(16, 2, 0.2 if init == "ptd" else None)
    V, inverse = (torch.view_as_complex(z.contiguous()) for z in parts[1:])
    ones = torch.ones(16, 1, dtype=V.dtype)
    with torch.no_grad():
        mixer.B.copy_(torch.view_as_real(inverse @ ones))
        mixer.C.copy_(torch.view_as_real(V[:1]))
        mixer.D.zero_()
    x = torch.zeros(1, 20, 1, dtype=torch.float64)
    x[0, 0] = 1
    factor = torch.matrix_exp(0.1 * A)
    state = torch.linalg.solve(A, (factor - torch.eye(8, dtype=A.dtype)) @ torch.ones(8, dtype=A.dtype))
    expected = []
    for _ in range(20):
        expected.append(state[0])
        state = factor @ state
    close(mixer(x)[0][0, :, 0].detach(), torch.stack(expected), 1e-9, init)


@pytest.mark.parametrize("init", ["hippo", "ptd"])
@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_conjugates_may_be_left_out(init, discretization):
    """The whole spectrum, with conjugate rows of B and columns of C, is the half of it twice."""
    half = plain(3, d_state=8, blocks=2, init=init, discretization=discretization)
    whole = plain(3, d_state=8, blocks=2, init=init, discretization=discretization, conj_sym=False)
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64)
    close(whole.A[4:], half.A * sign, 1e-12, "poles")
    with torch.no_grad():
        whole.log_dt.copy_(half.log_dt.repeat(2))
        whole.B.copy_(torch.cat([half.B, half.B * sign]))
        whole.C.copy_(torch.cat([half.C, half.C * sign], 1))
        whole.D.copy_(half.D)
    x, resets = torch.randn(2, 40, 3, dtype=torch.float64), torch.rand(2, 40) < 0.1
    close(whole(x, resets=resets)[0], half(x, resets=resets)[0], 1e-11, "conjugates")


def test_the_map_of_the_inputs_starts_real():
    """Both halves of V (V^-1 B) sum to a real map; kept in one half it is twice the real part."""
    for init in ("hippo", "ptd"):
        whole = S5(5, d_state=8, init=init, conj_sym=False)
        B = torch.view_as_complex(whole.B.detach())
        close(torch.view_as_real(B[4:]), torch.view_as_real(B[:4].conj().resolve_conj()), 1e-6, "B")


def test_spread_of_what_is_drawn():
    mixer = S5(128, d_state=256)
    # An orthonormal basis keeps the spread: real maps of deviation 1 / sqrt(256), split over both parts.
    assert mixer.B.square().sum(-1).mean().item() == pytest.approx(1 / 256, rel=0.05)
    variances = {"trunc_standard_normal": 2 / 256, "lecun_normal": 2 / 256 / 128, "complex_normal": 1.0}
    for c_init, variance in variances.items():
        C = S5(128, d_state=256, c_init=c_init).C
        assert C.square().sum(-1).mean().item() == pytest.approx(variance, rel=0.05), c_init
    assert mixer.D.square().mean().item() == pytest.approx(1, rel=0.4)
    sizes = mixer.log_dt.exp()
    assert sizes.min() >= 0.999e-3
    assert sizes.max() <= 1.001e-1
    assert mixer.log_dt.std().item() == pytest.approx(torch.tensor(100.0).log().item() / 12**0.5, rel=0.15)


def test_twice_the_step_is_half_the_rate_exactly():
    """ZOH: inputs held for two steps each, read at every second one, are the system at twice the step."""
    fast = plain(4, d_state=8)
    slow = copy.deepcopy(fast)
    slow.step_rescale = 2.0
    x = torch.randn(2, 30, 4, dtype=torch.float64)
    expected = fast(x.repeat_interleave(2, 1))[0][:, 1::2]
    close(slow(x)[0], expected, 1e-11, "step_rescale")
    close(fast(x, dt=torch.full((2, 30), 2.0, dtype=torch.float64))[0], expected, 1e-11, "dt")
    close(plain_like(fast, step_rescale=2.0)(x)[0], expected, 1e-11, "at construction")


def plain_like(mixer, **keywords):
    other = plain(4, d_state=8, **keywords)
    other.load_state_dict(mixer.state_dict())
    return other


def test_half_of_a_smooth_signal_at_twice_the_step_is_nearly_the_same():
    mixer = plain(1, d_state=16, dt_min=0.01, dt_max=0.05)
    signal = torch.sin(torch.arange(400, dtype=torch.float64) / 25)[None, :, None]
    whole = mixer(signal)[0][:, ::2]
    mixer.step_rescale = 2.0
    close(mixer(signal[:, ::2])[0], whole, 0.05, "half the samples")


def test_step_rescale_acts_on_a_step_at_once():
    mixer = plain(4, d_state=8)
    x = torch.randn(1, 4, dtype=torch.float64)
    with torch.no_grad():
        state = mixer.init_state(1)
        before = mixer.step(x, state)[0]
        mixer.step_rescale = 2.0
        after = mixer.step(x, state)[0]
    close(after, mixer(x[:, None])[0][:, 0], 1e-12, "after")
    assert (after - before).abs().max() > 1e-3 * before.abs().max()


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_step_rescale_is_positive(factor):
    with pytest.raises(ValueError, match="step_rescale"):
        S5(4, d_state=4, step_rescale=factor)
    mixer = S5.example()
    with pytest.raises(ValueError, match="step_rescale"):
        mixer.step_rescale = factor
    assert mixer.step_rescale == 1.0


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_irregular_steps_are_the_system_as_it_is(discretization):
    """Each token with a step of its own, against complex arithmetic one step at a time."""
    mixer = plain(3, d_state=6, discretization=discretization)
    x, dt = torch.randn(1, 25, 3, dtype=torch.float64), 0.3 + 2 * torch.rand(1, 25, dtype=torch.float64)
    A, B, C = (torch.view_as_complex(z.detach().contiguous()) for z in mixer.system()[:3])
    state, expected = torch.zeros(3, dtype=torch.complex128), []
    for t in range(25):
        z = dt[0, t] * mixer.log_dt.detach().exp() * A
        factor, gain = (
            (z.exp(), (z.exp() - 1) / A)
            if discretization == "zoh"
            else ((1 + z / 2) / (1 - z / 2), z / A / (1 - z / 2))
        )
        state = factor * state + gain * (B @ x[0, t].to(B.dtype))
        expected.append((C @ state).real + mixer.D.detach() * x[0, t])
    y, last = mixer(x, dt=dt)
    close(y[0], torch.stack(expected), 1e-10, discretization)
    close(last.x[0], torch.view_as_real(state), 1e-10, discretization)


@pytest.mark.parametrize("with_dt", [False, True])
def test_blocks_that_stay_in_the_cache_change_nothing(with_dt, monkeypatch):
    """Without gradients tokens run in blocks all the way to the output."""
    mixer = S5(3, d_state=256).double()
    x, dt = torch.randn(2, 70, 3, dtype=torch.float64), 0.5 + torch.rand(2, 70, dtype=torch.float64)
    resets = torch.rand(2, 70) < 0.1
    expected, last = mixer(x, resets=resets, dt=dt if with_dt else None)
    monkeypatch.setattr(_lti, "CACHED", 16 * 2 * 128)
    with torch.no_grad():
        y, state = mixer(x, resets=resets, dt=dt if with_dt else None)
    close(y, expected.detach(), 1e-12, "blocks")
    close(state.x, last.x.detach(), 1e-12, "state")


def scalar():
    """One real pole whose factor is 1/2 and which takes in its input as it comes."""
    mixer = plain(1, d_state=2)
    with torch.no_grad():
        mixer.A.copy_(torch.tensor([[-1.0, 0.0]]))
        mixer.log_dt.fill_(torch.tensor(2.0, dtype=torch.float64).log().log())  # exp(-dt) = 1/2
        mixer.B.copy_(torch.tensor([[[2.0, 0.0]]]))  # the gain of a step is 1/2
        mixer.C.copy_(torch.tensor([[[0.5, 0.0]]]))
        mixer.D.zero_()
    return mixer


def test_a_reset_drops_the_state_before_its_token():
    """Factor 1/2, state 4, inputs 1, a reset at the third: 3, 2.5, 1, 1.5, 1.75."""
    mixer = scalar()
    state = _lti.SharedState(torch.tensor([[[4.0, 0.0]]], dtype=torch.float64))
    resets = torch.tensor([[False, False, True, False, False]])
    expected = torch.tensor([3, 2.5, 1, 1.5, 1.75], dtype=torch.float64)
    ones = torch.ones(1, 5, 1, dtype=torch.float64)
    for form in (mixer, lambda *a, **k: run_steps(mixer, *a, **k)):
        close(form(ones, state, resets=resets)[0][0, :, 0], expected, 1e-12, "resets")


def join(i, j):
    """Two stretches of a scan with resets as one, j after i."""
    (a, b, c), (p, q, r) = i, j
    return (p * a) * (1 - r) + p * r, (p * b + q) * (1 - r) + q * r, c * (1 - r) + r


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-2, 2)] * 2, st.booleans()), min_size=3, max_size=3), st.floats(-2, 2))
def test_resets_are_part_of_an_associative_scan(triples, start):
    """(a, b, reset) may be joined in any order, and joined they are what the mixer's scan does."""
    first, second, third = [(a, b, float(c)) for a, b, c in triples]
    left, right = join(join(first, second), third), join(first, join(second, third))
    assert left == pytest.approx(right, abs=1e-12)
    a, b, c = (torch.tensor(z, dtype=torch.float64) for z in zip(first, second, third, strict=True))
    pairs = [torch.stack([z, torch.zeros_like(z)], -1)[None, :, None] for z in (a, b)]
    state = torch.tensor([[[start, 0.0]]], dtype=torch.float64)
    last = _lti.linear_scan_complex(*pairs, state, c.bool()[None])[1]
    assert last[0, 0, 0].item() == pytest.approx(join((1.0, start, 0.0), left)[1], abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(cut=st.integers(1, 29), with_dt=st.booleans())
def test_two_episodes_in_a_row_are_each_alone(cut, with_dt):
    mixer = S5.example().double()
    x = torch.randn(1, 30, 8, dtype=torch.float64)
    dt = 0.5 + torch.rand(1, 30, dtype=torch.float64) if with_dt else None
    resets = torch.zeros(1, 30, dtype=torch.bool)
    resets[0, cut] = True
    warm = mixer(torch.randn(1, 5, 8, dtype=torch.float64))[1]
    y, last = mixer(x, warm, resets=resets, dt=dt)
    first, _ = mixer(x[:, :cut], warm, dt=None if dt is None else dt[:, :cut])
    second, state = mixer(x[:, cut:], dt=None if dt is None else dt[:, cut:])
    close(y, torch.cat([first, second], 1), 1e-11, "episodes")
    close(last.x, state.x, 1e-11, "state")


def test_gates():
    y = torch.randn(5, 4)
    g = F.gelu(y)
    for activation in ("half_glu1", "half_glu2", "gelu", "full_glu"):
        mixer = S5(4, d_state=4, activation=activation)
        if activation == "gelu":
            expected = g
        elif activation == "full_glu":
            a, b = mixer.output.linear(g).chunk(2, -1)
            expected = a * torch.sigmoid(b)
        else:
            expected = (g if activation == "half_glu1" else y) * torch.sigmoid(mixer.output(g))
        torch.testing.assert_close(mixer.readout(y), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"conj_sym": False},
        {"init": "ptd", "blocks": 1},
        {"discretization": "bilinear", "activation": "half_glu1", "c_init": "lecun_normal"},
        {"activation": "half_glu2", "c_init": "complex_normal", "clip_eigs": False, "step_rescale": 2.0},
    ],
    ids=lambda options: "-".join(f"{k}={v}" for k, v in options.items()),
)
def test_the_contract_holds_for_every_option(options):
    check_mixer(S5(6, d_state=8, **options))


def test_clipped_poles_stay_left_of_the_axis():
    mixer = S5.example()
    with torch.no_grad():
        mixer.A[:, 0] = 3.0
    torch.testing.assert_close(mixer.system().A[..., 0], torch.full((4,), -1e-4))
    mixer.clip_eigs = False
    assert (mixer.system().A[..., 0] == 3).all()


def test_step_sizes_and_poles_and_input_weights_train_slowly_without_decay():
    mixer = S5.example()
    (group,) = mixer.parameter_groups()
    assert {id(p) for p in group.parameters} == {id(p) for p in (mixer.log_dt, mixer.A, mixer.B)}
    assert group.max_lr == 1e-3
    assert group.decay is False


def test_autocast_leaves_the_state_in_float32():
    mixer = S5.example()
    x = torch.randn(2, 20, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = mixer(x)
        _, after = mixer.step(x[:, 0], state)
    assert state.x.dtype == after.x.dtype == torch.float32
    close(state.x, mixer(x)[1].x, 1e-6, "state under autocast")


def test_built_without_memory():
    with torch.device("meta"):
        for init in ("hippo", "ptd"):
            assert all(p.is_meta for p in S5(4, d_state=8, init=init).parameters())


def test_wrong_arguments_are_refused_with_a_sentence():
    for keywords, words in (
        ({"d_state": 10, "blocks": 2}, "multiple of 2 \\* blocks"),
        ({"d_state": 4, "blocks": 0}, "multiple of 2 \\* blocks"),
        ({"init": "legt"}, "no init 'legt'; expected one of hippo, ptd"),
        ({"c_init": "ones"}, "no c_init 'ones'"),
        ({"activation": "relu"}, "no activation 'relu'"),
        ({"discretization": "euler"}, "no discretization 'euler'"),
    ):
        with pytest.raises(ValueError, match=words):
            S5(4, **keywords)
