"""HiPPO-LegS: published numbers, what a constant leaves, scales of time, irregular times, reconstruction."""

import pytest
import torch

from hippodrome.inits import hippo
from hippodrome.mixers import _memory
from hippodrome.mixers.base import run_steps
from hippodrome.mixers.hippo_legs import HippoLegS
from hippodrome.ops.discretize import DENSE
from hippodrome.testing.mixers import assert_equal, assert_equal_states
from hippodrome.testing.ops import close

RULES = ["forward_euler", "backward_euler", "bilinear", "zoh", "exact"]
GOLDEN = {
    "backward_euler": [2, 1.15470054, 0, 0],
    "forward_euler": [2.5, 1.44337567, 0, 0],
    "bilinear": [2.22222222, 1.34715063, -0.05485304, 0.03054258],
    "zoh": [2, 1.38564065, 0, -0.08466404],
}


def memory(d_state, rule="bilinear", start="first"):
    """One channel whose memory is of that channel."""
    mixer = HippoLegS(1, d_state, discretization=rule, start=start).double()
    with torch.no_grad():
        mixer.input.weight.fill_(1)
    return mixer


@torch.no_grad()
def weights(mixer, signal, dt=None, resets=None):
    """The state after a signal (t), or signals (b, t)."""
    signal = torch.as_tensor(signal, dtype=torch.float64)
    rows = signal if signal.dim() == 2 else signal[None]
    state = mixer(rows[..., None], dt=dt, resets=resets)[1]
    return state.c[:, 0] if signal.dim() == 2 else state.c[0, 0]


def smooth(x, seed=0, waves=6):
    """A band-limited signal of at most ``waves`` periods over the unit interval, at the places x."""
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, waves, generator=g, dtype=torch.float64)
    angle = 2 * torch.pi * x[..., None] * torch.arange(1, waves + 1, dtype=torch.float64)
    return angle.cos() @ a + angle.sin() @ b


@pytest.mark.parametrize("rule", GOLDEN)
def test_published_weights_of_one_to_four(rule):
    """From c = 0, in float64 whatever precision the mixer was made in."""
    expected = torch.tensor(GOLDEN[rule], dtype=torch.float64)
    torch.testing.assert_close(weights(memory(4, rule, "zero"), [1.0, 2, 3, 4]), expected, rtol=0, atol=5e-9)


@pytest.mark.parametrize("n", [1, 2, 5, 24])
@pytest.mark.parametrize("rule", RULES)
def test_one_step_is_that_of_the_dense_system(rule, n):
    """Triangular solves and Gauss integrals give what general solves and exponentials give."""
    A, B = hippo.legs(n)
    dt, elapsed = (
        torch.tensor([[1.0, 0.3], [2.0, 1.0]]).double(),
        torch.tensor([[3.0, 9.0], [2.5, 900]]).double(),
    )
    ratio = dt / elapsed
    size = {"zoh": torch.log1p(ratio), "exact": -torch.log1p(-ratio)}.get(rule, ratio)
    expected = DENSE["zoh" if rule == "exact" else rule](A, B[:, None], size)
    Abar, Bbar = _memory.Scaled(n, rule).matrices(dt, elapsed)
    close(Abar, expected[0], 1e-11, rule)
    close(Bbar, expected[1][..., 0], 1e-11, rule)


@pytest.mark.parametrize("rule", RULES)
def test_a_constant_is_its_own_weight_after_every_step(rule):
    """f = 1 leaves c = (1, 0, 0, ...), by step as by forward."""
    mixer = memory(16, rule)
    expected = torch.eye(16, dtype=torch.float64)[:1]
    state = mixer.init_state(1)
    one = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(12):
        _, state = mixer.step(one, state)
        torch.testing.assert_close(state.c[0], expected, rtol=0, atol=1e-14)
    # Forward Euler is not stable before step n / 2, so its products of many steps lose digits.
    torch.testing.assert_close(
        weights(mixer, torch.ones(1, 12)), expected, rtol=0, atol=1e-7 if rule == "forward_euler" else 1e-12
    )


@pytest.mark.parametrize("rule", RULES)
def test_scale_of_time_changes_nothing(rule):
    """Only ratios of times enter: all steps times one number give the same state, to the bit."""
    mixer = memory(8, rule)
    f, dt = torch.randn(2, 50, dtype=torch.float64), 0.5 + torch.rand(2, 50, dtype=torch.float64)
    assert torch.equal(weights(mixer, f, 4 * dt), weights(mixer, f, dt))
    assert not torch.equal(weights(mixer, f), weights(mixer, f, dt))


def test_twice_as_fast_is_the_same_at_half_the_time():
    """The weights of f(2x) at t are those of f at 2t: each sample held twice as long changes nothing."""
    f = smooth(torch.linspace(0, 1, 200, dtype=torch.float64))
    fast, slow = weights(memory(12, "exact"), f), weights(memory(12, "exact"), f.repeat_interleave(2))
    close(slow, fast, 1e-11, "exact")
    fast, slow = weights(memory(12), f), weights(memory(12), f.repeat_interleave(2))
    close(slow, fast, 2e-2, "bilinear, whose steps are finite")


def test_irregular_times_are_a_finer_regular_grid():
    """An input held for k units of time in one step leaves what k steps of one unit leave."""
    lengths = torch.randint(1, 6, (40,), generator=torch.Generator().manual_seed(1))
    f = torch.randn(40, dtype=torch.float64)
    mixer = memory(10, "exact")
    irregular = weights(mixer, f, dt=lengths[None].double())
    close(irregular, weights(mixer, f.repeat_interleave(lengths)), 1e-11, "exact")


@pytest.mark.parametrize("rule", ["backward_euler", "bilinear", "zoh"])
def test_irregular_times_near_the_continuous_weights(rule):
    """Times drawn at random: the error against the integral falls as the steps grow shorter."""
    fine = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    expected = (smooth(fine, waves=2)[:, None] * hippo.basis("legs", 8, 1 - fine)).mean(0)
    errors = []
    for count in (100, 400, 1600):
        g = torch.Generator().manual_seed(2)
        dt = 0.5 + torch.rand(1, count, generator=g, dtype=torch.float64)
        ends = dt.cumsum(1)
        signal = smooth((ends - 0.5 * dt)[0] / ends[0, -1], waves=2)
        errors.append(float((weights(memory(8, rule), signal, dt) - expected).norm() / expected.norm()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.02


def test_the_exact_rule_holds_the_means_of_the_past():
    """Its weights are the integrals (1/t) of f sqrt(2i+1) P_i, of a signal constant over each step."""
    f, n = torch.randn(7, dtype=torch.float64), 5
    nodes = torch.tensor([-(0.6**0.5), 0.0, 0.6**0.5], dtype=torch.float64)  # Gauss, exact to degree 5
    share = torch.tensor([5.0, 8.0, 5.0], dtype=torch.float64) / 18
    places = (torch.arange(7, dtype=torch.float64)[:, None] + 0.5 + 0.5 * nodes) / 7
    values = hippo.basis("legs", n, 1 - places)
    expected = torch.einsum("s,sqn,q->n", f, values, share) / 7
    close(weights(memory(n, "exact"), f), expected, 1e-12, "integrals")


def test_a_smooth_signal_is_rebuilt_as_well_as_polynomials_can():
    """Length 1000, 64 weights, against the least-squares fit of the same polynomials."""
    places = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    f, basis = smooth(places, waves=8), hippo.basis("legs", 64, 1 - places)
    best = basis @ torch.linalg.lstsq(basis, f[:, None]).solution[:, 0]
    assert float((best - f).norm() / f.norm()) < 1e-9
    for rule, allowed in (("exact", 2e-3), ("bilinear", 0.05)):
        rebuilt = basis @ weights(memory(64, rule), f)
        assert float((rebuilt - best).norm() / best.norm()) < allowed, rule


@pytest.mark.parametrize("rule", ["backward_euler", "bilinear", "zoh", "exact"])
def test_rows_with_clocks_of_their_own(rule):
    """Forward equals step over a longer stretch, with resets, irregular times, and rows apart."""
    mixer = HippoLegS(3, 16, 2, rule).double()
    g = torch.Generator().manual_seed(3)
    x = torch.randn(2, 90, 3, generator=g, dtype=torch.float64)
    dt = 0.1 + torch.rand(2, 90, generator=g, dtype=torch.float64)
    resets = torch.rand(2, 90, generator=g) < 0.05
    warm = mixer(x[:, :30], resets=resets[:, :30], dt=dt[:, :30])[1]
    with torch.no_grad():
        y, last = run_steps(mixer, x, warm, resets=resets, dt=dt)
        got, after = mixer(x, warm, resets=resets, dt=dt)
    assert_equal(got, y, rule)
    assert_equal_states(after, last, rule)


def test_rows_that_share_a_clock_share_matrices():
    """A state in which all rows stand at one time gives what separate matrices give."""
    mixer = HippoLegS.example().double()
    x = torch.randn(3, 12, 8, dtype=torch.float64)
    with torch.no_grad():
        _, state = mixer(x[:, :5])
        shared, after = mixer(x[:, 5:], state)
        apart, last = mixer(x[:, 5:], state, resets=torch.zeros(3, 7, dtype=torch.bool))
    close(shared, apart, 1e-11, "outputs")
    close(after.c, last.c, 1e-11, "state")
    assert torch.equal(after.elapsed, last.elapsed)


def test_the_memory_keeps_its_digits_in_any_dtype():
    mixer = HippoLegS(2, 32)
    A, _ = hippo.legs(32)
    assert torch.equal(mixer.bfloat16().memory.A(torch.float64), A)
    assert torch.equal(mixer.double().memory.A(torch.float64), A)
    assert not [name for name in mixer.state_dict() if name.startswith("memory")]
    assert mixer.bfloat16().init_state(1).c.dtype == torch.float32


def test_unknown_words_are_named():
    with pytest.raises(ValueError, match="no discretization 'euler'"):
        HippoLegS(4, discretization="euler")
    with pytest.raises(ValueError, match="no start 'warm'"):
        HippoLegS(4, start="warm")
