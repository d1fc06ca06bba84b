"""Liquid-S4: published numbers, the exact expansion, its truncation, and the two kernels of products."""

import math
from itertools import combinations

import pytest
import torch

from hippodrome.mixers.liquid_s4 import LiquidS4
from hippodrome.mixers.s4d import S4D
from hippodrome.testing.mixers import check_forward, check_mixer
from hippodrome.testing.ops import close

OFF = -1e4
"""exp of it is zero: a pole that does not decay."""


def bare(mixer):
    """In float64, with no skip and no output map."""
    mixer = mixer.double()
    with torch.no_grad():
        mixer.D.zero_()
    mixer.output = torch.nn.Identity()
    return mixer


def scalar(a, b, c, *rest):
    """x_k = (a + b u_k) x_{k-1} + b u_k, y = c x, all real."""
    mixer = bare(LiquidS4(1, 2, *rest, discretization="impulse"))
    with torch.no_grad():
        mixer.log_dt.zero_()
        mixer.log_A_real.fill_(OFF if a == 1 else math.log(-math.log(a)))
        mixer.A_imag.zero_()
        mixer.B.copy_(torch.tensor([b, 0.0], dtype=torch.float64).expand_as(mixer.B))
        # The engine reads twice the real part.
        mixer.C.copy_(torch.tensor([0.5 * c, 0.0], dtype=torch.float64).expand_as(mixer.C))
    return mixer


def system(mixer):
    """Abar, Bbar and C with its factor 2, complex (d, n)."""
    A, B, C, _ = mixer.system()
    one = mixer.discretize(A, mixer.step_size()[:, None])
    log_a, gain, B, C = (torch.view_as_complex(x.contiguous()) for x in (one.log_a, one.gain, B, C))
    return torch.exp(log_a), gain * B, C


def expansion(mixer, u, order, consecutive=False):
    """One order of the expansion of one sequence u (t, d), summed over all its products of inputs."""
    a, b, c = system(mixer)
    y = torch.zeros_like(u)
    for k in range(len(u)):
        for places in combinations(range(k + 1), order):
            if consecutive and places[-1] - places[0] != order - 1:
                continue
            weight = (c * a ** (k - places[0] - order + 1) * b**order).sum(-1).real
            y[k] += weight * u[list(places)].prod(0)
    return y


def test_published_numbers_and_their_orders():
    mixer = scalar(0.9, 0.1, 2.0)
    u = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)[None, :, None]
    torch.testing.assert_close(
        mixer(u)[0].flatten(), torch.tensor([0.2, 0.62, 0.296], dtype=torch.float64), rtol=0, atol=1e-12
    )
    expected = torch.tensor([[0.2, 0.58, 0.322], [0, 0.04, -0.022], [0, 0, -0.004]], dtype=torch.float64)
    torch.testing.assert_close(mixer.orders(u, 3)[:, 0, :, 0], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(mixer.second_order(u)[0, :, 0], expected[1], rtol=0, atol=1e-12)


def test_without_decay_one_plus_the_state_is_a_product():
    mixer = scalar(1.0, 0.3, 1.0)
    u = torch.randn(2, 40, 1, dtype=torch.float64)
    close(1 + mixer(u)[0], (1 + 0.3 * u).cumprod(1), 1e-10, "product")


@pytest.mark.parametrize("discretization", ["bilinear", "zoh"])
def test_without_the_products_it_is_s4_with_a_diagonal(discretization):
    mixer = bare(LiquidS4(3, 6, discretization=discretization))
    peer = S4D(3, 6, discretization=discretization).double()
    peer.output = torch.nn.Identity()
    named = dict(mixer.named_parameters())
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            parameter.copy_(named[name])
    x = torch.randn(2, 50, 3, dtype=torch.float64)
    close(mixer.orders(x, 1)[0], peer(x)[0], 1e-9, "order 1")
    close(mixer.kernel(50), peer.kernel(50), 1e-12, "kernel")
    small = 1e-7 * x
    close(mixer(small)[0], peer(small)[0], 1e-5, "inputs too small for products")


def test_the_expansion_is_the_recurrence_exactly():
    mixer = bare(LiquidS4(2, 4, dt_min=0.1, dt_max=0.5))
    u = torch.randn(7, 2, dtype=torch.float64)
    orders = torch.stack([expansion(mixer, u, p) for p in range(1, 8)])
    close(mixer.orders(u[None], 7)[:, 0], orders, 1e-10, "order by order")
    close(mixer(u[None])[0][0], orders.sum(0), 1e-10, "the sum")


def test_order_two_by_prefix_sums_is_exact():
    mixer = bare(LiquidS4(3, 8, dt_min=0.05))
    x = torch.randn(2, 60, 3, dtype=torch.float64)
    close(mixer.second_order(x), mixer.orders(x, 2)[1], 1e-9, "prefix sums")
    close(mixer.second_order(x)[0, :9], expansion(mixer, x[0, :9], 2), 1e-9, "brute force")


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_the_error_of_a_truncation_is_of_the_next_order(degree):
    """Half the input, 2^-(degree + 1) of the error."""
    mixer = bare(LiquidS4(2, 4, dt_min=0.1, dt_max=0.3))
    x = 0.02 * torch.randn(1, 30, 2, dtype=torch.float64)
    errors = [(mixer(s * x)[0] - mixer.orders(s * x, degree).sum(0)).abs().max().item() for s in (1.0, 0.5)]
    assert errors[0] > 0
    assert errors[0] / errors[1] == pytest.approx(2 ** (degree + 1), rel=0.1)


def test_kb_is_the_products_of_inputs_in_a_row():
    mixer = bare(LiquidS4(2, 4, "kb", 3, dt_min=0.1, dt_max=0.5))
    u = torch.randn(9, 2, dtype=torch.float64)
    expected = sum(expansion(mixer, u, p, consecutive=True) for p in (1, 2, 3))
    close(mixer(u[None])[0][0], expected, 1e-10, "kb")


def test_pb_adds_products_of_the_current_inputs_with_no_memory():
    mixer = bare(LiquidS4(2, 4, "pb", 3, dt_min=0.1, dt_max=0.5))
    u = torch.randn(9, 2, dtype=torch.float64)
    _, b, c = system(mixer)
    before = torch.cat([torch.zeros(2, 2, dtype=torch.float64), u])
    pairs = before[2:] * before[1:-1]
    expected = expansion(mixer, u, 1) + (c * b**2).sum(-1).real * pairs
    expected = expected + (c * b**3).sum(-1).real * pairs * before[:-2]
    close(mixer(u[None])[0][0], expected, 1e-10, "pb")


def test_kb_leaves_out_products_with_gaps_and_so_an_error_of_order_two():
    mixer = bare(LiquidS4(2, 4, "kb", 4, dt_min=0.1, dt_max=0.3))
    whole = bare(LiquidS4(2, 4))
    whole.load_state_dict(mixer.state_dict())
    x = 0.01 * torch.randn(1, 30, 2, dtype=torch.float64)
    errors = [(whole(s * x)[0] - mixer(s * x)[0]).abs().max().item() for s in (1.0, 0.5)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_kernels_are_their_definition_and_agree_where_nothing_decays():
    mixer = bare(LiquidS4(2, 6))
    a, b, c = system(mixer)
    for p in (1, 2, 4):
        lags = torch.arange(12)
        kb = (c * b**p)[..., None] * a[..., None] ** lags
        close(mixer.kernel(12, p), kb.sum(1).real, 1e-10, "kb")
        close(mixer.kernel(12, p, "pb"), (c * b**p).sum(1).real[:, None].expand(-1, 12), 1e-10, "pb")
    with torch.no_grad():
        mixer.log_A_real.fill_(OFF)
        mixer.A_imag.zero_()
    for p in (1, 2, 3):
        close(mixer.kernel(12, p, "pb"), mixer.kernel(12, p, "kb"), 1e-12, "no decay")


@pytest.mark.parametrize(("kind", "degree"), [("kb", 2), ("kb", 4), ("pb", 2), ("pb", 3)])
def test_contract_of_the_kernels(kind, degree):
    check_mixer(LiquidS4(4, 4, kind, degree))
    resets = torch.zeros(3, 17, dtype=torch.bool)
    resets[0, [0, 1, 2, 9]] = True
    resets[2, [8]] = True
    for with_dt in (False, True):
        check_forward(LiquidS4(4, 4, kind, degree), 17, splits=(1, 2, 9), resets=resets, with_dt=with_dt)


def test_ungated_it_is_what_its_output_map_is_given():
    whole, bare = LiquidS4(3, 4).double(), LiquidS4(3, 4, gated=False).double()
    bare.load_state_dict(whole.state_dict(), strict=False)
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    close(whole(x)[0], whole.output(bare(x)[0]), 1e-12, "output map")


def test_step_sizes_and_poles_and_input_weights_train_slowly_without_decay():
    mixer = LiquidS4.example()
    (group,) = mixer.parameter_groups()
    slow = {id(p) for p in (mixer.log_dt, mixer.log_A_real, mixer.A_imag, mixer.B)}
    assert {id(p) for p in group.parameters} == slow
    assert (group.max_lr, group.decay) == (1e-3, False)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="'polyb'"):
        LiquidS4(4, liquid_kernel="polyb")
    with pytest.raises(ValueError, match="degree=3"):
        LiquidS4(4, degree=3)
    with pytest.raises(ValueError, match="got None"):
        LiquidS4(4, liquid_kernel="kb")
    with pytest.raises(ValueError, match="no init 'legt'"):
        LiquidS4(4, init="legt")
    with pytest.raises(ValueError, match="order of at least 1"):
        LiquidS4(4).kernel(5, 0)
