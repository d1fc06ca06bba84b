"""Mega: the published average, attention functions, chunks, gates, both directions, and refusals."""

import math

import pytest
import torch

from hippodrome.mixers._ema import EMA
from hippodrome.mixers._gau import attend, weigh
from hippodrome.mixers.base import run_steps
from hippodrome.mixers.mega import Mega
from hippodrome.testing.mixers import check_mixer, check_noncausal, prepared, tokens

SMALL = {"d_state": 4, "d_query": 4, "d_value": 8}


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def average(bidirectional=False):
    """One channel and one average with p = .4, alpha = .3, beta = gamma = 1 and omega = 0."""
    ema = EMA(1, 1, bidirectional).double()
    with torch.no_grad():
        ema.delta.fill_(logit(0.4))
        ema.a.fill_(logit(0.3))
        ema.beta.fill_(1)
        ema.gamma.fill_(1)
        ema.omega.fill_(0)
    return ema


def test_the_published_kernel_in_every_view():
    ema = average()
    expected = torch.tensor([0.4, 0.352, 0.30976, 0.2725888, 0.23987814], dtype=torch.float64)
    impulse = torch.zeros(1, 5, 1, dtype=torch.float64)
    impulse[0, 0] = 1
    h, stepped = ema.init_state(1), []
    for t in range(5):
        y, h = ema.step(impulse[:, t], h)
        stepped.append(y[0, 0])
    for got in (ema.kernel(5)[0], ema(impulse)[0][0, :, 0], torch.stack(stepped)):
        torch.testing.assert_close(got, expected, rtol=0, atol=5e-9)


def test_the_average_is_a_real_diagonal_system():
    torch.manual_seed(0)
    ema = EMA(3, 5).double()
    x = torch.randn(2, 11, 3, dtype=torch.float64)
    p, alpha = torch.sigmoid(ema.delta[0]), torch.sigmoid(ema.a[0])
    A, B, C = 1 - p * alpha, p * ema.beta[0], ema.gamma[0] / 5**0.5
    assert bool((A > 0).all())
    assert bool((A < 1).all())
    h, expected = torch.zeros(2, 3, 5, dtype=torch.float64), []
    for t in range(11):
        h = A * h + B * x[:, t, :, None]
        expected.append((C * h).sum(-1) + ema.omega * x[:, t])
    y, last = ema(x)
    torch.testing.assert_close(y, torch.stack(expected, 1))
    torch.testing.assert_close(last * B, h)


def test_an_average_that_forgets_at_once_stays_finite():
    ema = EMA(2, 2)
    with torch.no_grad():
        ema.delta.fill_(60.0)
        ema.a.fill_(60.0)
    y, _ = ema(torch.randn(1, 6, 2))
    assert bool(y.isfinite().all())
    y.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in ema.parameters())


def test_both_sides_hold_the_token_itself():
    ema = average(bidirectional=True)
    impulse = torch.zeros(1, 5, 1, dtype=torch.float64)
    impulse[0, 2] = 1
    expected = torch.tensor([0.30976, 0.352, 0.8, 0.352, 0.30976], dtype=torch.float64)
    torch.testing.assert_close(ema(impulse)[0][0, :, 0], expected, rtol=0, atol=1e-9)


def test_the_laplace_function_has_its_published_value_and_touches_relu_squared():
    everything = torch.ones(1, 1, dtype=torch.bool)
    at = torch.tensor([[0.5]], dtype=torch.float64)
    assert float(weigh(at, everything, "laplace")) == pytest.approx(0.231421, abs=5e-6)
    x = torch.tensor([[0.5**0.5]], dtype=torch.float64, requires_grad=True)
    laplace, relu2 = (weigh(x, everything, name) for name in ("laplace", "relu2"))
    assert laplace.item() == pytest.approx(relu2.item()) == pytest.approx(0.5)
    slopes = [torch.autograd.grad(y, x)[0] for y in (laplace.sum(), relu2.sum())]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("attention", ["softmax", "laplace", "relu2"])
def test_attention_is_what_a_loop_over_keys_says(attention):
    torch.manual_seed(1)
    q, k, v = (torch.randn(5, 3, dtype=torch.float64) for _ in range(3))
    bias = torch.randn(5, 5, dtype=torch.float64)
    got = attend(q, k, v, bias, torch.ones(5, 5, dtype=torch.bool).tril(), attention)
    for t in range(5):
        scores = torch.tensor([float(q[t] @ k[s]) for s in range(t + 1)], dtype=torch.float64)
        if attention == "softmax":
            w = torch.softmax(scores / 3**0.5 + bias[t, : t + 1], 0)
        else:
            scores = scores / (t + 1) + bias[t, : t + 1]
            mean, spread = 0.70710678, 0.28209479
            laplace = 0.5 * (1 + torch.erf((scores - mean) / (spread * 2**0.5)))
            w = laplace if attention == "laplace" else scores.clamp(min=0) ** 2
        torch.testing.assert_close(got[t], w @ v[: t + 1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {"chunk": 4},
        {"chunk": 3, "attention": "laplace"},
        {"attention": "relu2", "positions": "rotary"},
        {"chunk": 5, "max_positions": 2},
    ],
)
def test_the_contract_in_other_forms(options):
    check_mixer(Mega(8, **SMALL, **options))


@pytest.mark.parametrize("options", [{}, {"chunk": 4, "attention": "laplace", "positions": "rotary"}])
def test_both_directions(options):
    check_noncausal(Mega(8, **SMALL, bidirectional=True, **options), 13)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_chunk_is_full_attention_within_it(bidirectional):
    """With averages that forget at once, chunks are runs of their own."""
    whole = prepared(Mega(8, **SMALL, max_positions=5, bidirectional=bidirectional))
    chunked = prepared(Mega(8, **SMALL, max_positions=5, chunk=5, bidirectional=bidirectional))
    chunked.load_state_dict(whole.state_dict())
    x = tokens(whole, 2, 15)
    for mixer in (whole, chunked):
        with torch.no_grad():
            mixer.ema.gamma.zero_()
    pieces = [whole(part)[0] for part in x.split(5, 1)]
    torch.testing.assert_close(chunked(x)[0], torch.cat(pieces, 1))
    # And the first chunk is the same whatever the averages are.
    torch.testing.assert_close(chunked(x[:, :5])[0], whole(x[:, :5])[0])


def test_a_closed_update_gate_hands_the_input_through():
    mixer = prepared(Mega(8, **SMALL))
    with torch.no_grad():
        update = slice(4 + 8, 4 + 8 + 8)
        mixer.from_average.weight[update] = 0
        mixer.from_average.bias[update] = -1e4
    x = tokens(mixer, 2, 9)
    assert torch.equal(mixer(x)[0], x)
    with torch.no_grad():
        mixer.from_average.bias[update] = 1e4
    assert not torch.allclose(mixer(x)[0], x)


def test_rotary_bias_depends_on_the_distance_alone():
    bias = Mega(8, **SMALL, positions="rotary").double().bias
    with torch.no_grad():
        bias.a.normal_()
        bias.b.normal_()

    def turned(x: torch.Tensor, place: int) -> torch.Tensor:
        angle = place * torch.tensor([1.0, 10000**-0.5], dtype=torch.float64)
        (a, b), c, s = x.chunk(2), angle.cos(), angle.sin()
        return torch.cat([a * c - b * s, b * c + a * s])

    age = torch.arange(6)[:, None] - torch.arange(6)
    got = bias(age, 6)
    for i, j in ((5, 0), (5, 2), (3, 3), (4, 3)):
        assert got[i, j].item() == pytest.approx((turned(bias.a, i) @ turned(bias.b, j)).item())


def test_the_cost_of_chunks_is_linear_and_their_state_constant():
    from torch.utils.flop_counter import FlopCounterMode

    def flops(mixer: Mega, length: int) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            mixer(torch.zeros(1, length, 8))
        return counter.get_total_flops()

    chunked, whole = Mega(8, **SMALL, chunk=16).eval(), Mega(8, **SMALL).eval()
    assert flops(chunked, 512) == 2 * flops(chunked, 256)
    assert flops(whole, 512) > 3 * flops(whole, 256)
    assert [s.numel() for s in chunked.init_state(1, 10)] == [s.numel() for s in chunked.init_state(1, 9999)]


def test_what_cannot_be_is_refused():
    for options, said in (
        ({"attention": "cosine"}, "attention function"),
        ({"chunk": 0}, "chunk"),
        ({"positions": "none"}, "positions"),
        ({"d_query": 3, "positions": "rotary"}, "even"),
        ({"max_positions": 0}, "max_positions=0"),
    ):
        with pytest.raises(ValueError, match=said):
            Mega(8, **options)
    mixer = Mega(8, **SMALL)
    x = torch.zeros(1, 5, 8)
    with pytest.raises(ValueError, match="4 slots"):
        mixer(x, mixer.init_state(1, 4))
    with pytest.raises(ValueError, match="grows"):
        mixer.advance_(x[:, 0], mixer.init_state(1))
    run_steps(mixer, x, mixer.init_state(1, 5))
