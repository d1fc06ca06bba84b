"""LTC: published numbers of the fused step, its bounds, and what it tends to."""

import pytest
import torch

from hippodrome.mixers.ltc import LTC, State
from hippodrome.testing.ops import close

OFF = -1e4
"""softplus of it is zero: a synapse or leak that is not there."""


def inverse_softplus(y):
    return float(torch.log(torch.expm1(torch.tensor(y, dtype=torch.float64))))


def published():
    """One unit with tau = 1 and one synapse, from the input, with f = 0.3 always and A = 1."""
    mixer = LTC(1, d_state=1, unfolds=1).double()
    with torch.no_grad():
        mixer.w.copy_(torch.tensor([[inverse_softplus(0.6)], [OFF]], dtype=torch.float64))
        mixer.sigma.zero_()  # sigmoid(0) = 1/2
        mixer.e.fill_(1.0)
        mixer.c.fill_(inverse_softplus(1.0))
        mixer.g.fill_(inverse_softplus(1.0))
        mixer.leak.zero_()
        mixer.output.weight.fill_(1.0)
        mixer.output.bias.zero_()
    return mixer


def wide(d_state=6, unfolds=6):
    torch.manual_seed(0)
    return LTC(3, d_state, unfolds).double()


def test_published_fused_step():
    mixer = published()
    start = State(torch.full((1, 1), 0.2, dtype=torch.float64))
    y, _ = mixer(
        torch.randn(1, 3, 1, dtype=torch.float64), start, dt=torch.full((1, 3), 0.1, dtype=torch.float64)
    )
    expected = torch.tensor([0.20353982, 0.20667241, 0.20944461], dtype=torch.float64)
    torch.testing.assert_close(y[0, :, 0], expected, rtol=0, atol=5e-9)


def test_unfolds_are_steps_with_the_input_held():
    six, one = wide(unfolds=6), wide(unfolds=1)
    one.load_state_dict(six.state_dict())
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    close(one(x.repeat_interleave(6, 1))[0][:, 5::6], six(x)[0], 1e-12, "unfolds")


def test_small_steps_follow_the_differential_equation():
    """Against explicit Euler steps of the equation itself, a thousand times finer."""
    mixer = wide(4, unfolds=1)
    x = torch.randn(1, 1, 3, dtype=torch.float64)
    softplus = torch.nn.functional.softplus
    with torch.no_grad():
        w, c, g = softplus(mixer.w), softplus(mixer.c), softplus(mixer.g)
        v = torch.zeros(4, dtype=torch.float64)
        for _ in range(20_000):
            source = torch.cat([x[0, 0], v])
            s = torch.sigmoid(mixer.sigma * (source[:, None] - mixer.mu))
            v = v + 1e-5 * (g * (mixer.leak - v) + (w * s * (mixer.e - v)).sum(0)) / c
        errors = []
        for count in (100, 200):
            steps = torch.full((1, count), 0.2 / count, dtype=torch.float64)
            errors.append(float((mixer(x.expand(1, count, 3), dt=steps)[1].v[0] - v).abs().max()))
    assert errors[0] < 1e-2
    assert errors[1] < 0.6 * errors[0]


def test_potentials_stay_between_leaks_and_reversals_at_any_step():
    mixer = wide()
    with torch.no_grad():
        mixer.e.mul_(torch.rand_like(mixer.e))
        mixer.w.add_(3 * torch.randn_like(mixer.w))
    ends = torch.cat([mixer.e, mixer.leak[None], torch.zeros(1, 6)]).double()
    low, high = ends.min(0).values, ends.max(0).values
    x = 30 * torch.randn(4, 50, 3, dtype=torch.float64)
    for size in (1e-3, 1.0, 1e6):
        state = mixer.init_state(4)
        for t in range(50):
            _, state = mixer.step(x[:, t], state, dt_t=torch.full((4,), size, dtype=torch.float64))
            assert (state.v >= low - 1e-12).all()
            assert (state.v <= high + 1e-12).all()


def test_bounded_state_of_the_published_form():
    """min(0, A) <= x <= max(0, A), from inside."""
    for reversal in (1.0, -2.0):
        mixer = published()
        with torch.no_grad():
            mixer.e.fill_(reversal)
        x = torch.randn(3, 200, 1, dtype=torch.float64)
        y, _ = mixer(x, dt=10 * torch.rand(3, 200, dtype=torch.float64) + 1e-3)
        assert (y >= min(0.0, reversal)).all()
        assert (y <= max(0.0, reversal)).all()
        # What it tends to is f A / (1/tau + f).
        assert abs(y[0, -1].item() - 0.3 * reversal / 1.3) < 1e-3


def test_time_constants_are_bounded_and_move_with_the_input():
    mixer = wide()
    x, state = 5 * torch.randn(4, 3, dtype=torch.float64), mixer.init_state(4)
    softplus = torch.nn.functional.softplus
    tau = softplus(mixer.c) / softplus(mixer.g)
    most = softplus(mixer.w).sum(0) / softplus(mixer.c)
    found = mixer.time_constants(x, state)
    assert (found <= tau).all()
    assert (found >= tau / (1 + tau * most)).all()
    assert (found - mixer.time_constants(x + 1, state)).abs().max() > 1e-3


def test_the_closed_form_of_one_step_gives_the_time_constant():
    """With small steps a unit forgets its own potential at the rate 1 / tau_sys."""
    mixer = published()
    constant = mixer.time_constants(torch.zeros(1, 1).double(), mixer.init_state(1)).item()
    assert constant == pytest.approx(1 / 1.3, abs=1e-12)
    step = torch.full((1,), 1e-6, dtype=torch.float64)
    after = [
        mixer.step(torch.zeros(1, 1).double(), State(torch.full((1, 1), v, dtype=torch.float64)), dt_t=step)[
            1
        ].v
        for v in (0.2, 0.3)
    ]
    rate = -torch.log((after[1] - after[0]) / 0.1) / 1e-6
    assert rate.item() == pytest.approx(1 / constant, rel=1e-5)


def test_first_values_are_the_published_ranges():
    mixer = LTC(20, 30)
    softplus = torch.nn.functional.softplus
    for values, low, high in (
        (softplus(mixer.w), 0.01, 1.0),
        (mixer.mu, 0.3, 0.8),
        (mixer.sigma, 3.0, 8.0),
        (mixer.leak, -0.2, 0.2),
        (softplus(mixer.c), 0.5, 0.5),
        (softplus(mixer.g), 1.0, 1.0),
    ):
        assert low - 1e-5 <= values.min().item() <= values.max().item() <= high + 1e-5
    assert set(mixer.e.unique().tolist()) == {-1.0, 1.0}


def test_time_scales_train_slowly_and_nothing_of_a_synapse_decays():
    mixer = LTC.example()
    slow, synapses = mixer.parameter_groups()
    assert {id(p) for p in slow.parameters} == {id(mixer.c), id(mixer.g)}
    assert slow.max_lr == 1e-3
    assert not slow.decay
    assert not synapses.decay


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="unfolds=0"):
        LTC(3, unfolds=0)
