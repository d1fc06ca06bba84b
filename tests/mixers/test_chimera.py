"""Chimera: its special cases, the convolution that it is without a choice, its orders and its stability."""

import pytest
import torch
from torch import Tensor

from hippodrome.mixers.chimera import Chimera
from hippodrome.ops.fft_conv_nd import fft_conv_nd
from hippodrome.ops.scan2d import scan2d
from hippodrome.ops.selective_scan import selective_scan
from hippodrome.ops.ssd import ssd
from hippodrome.testing.mixers import assert_equal, check_mixer, prepared, tokens


def made(variates: int = 3, **options) -> Chimera:
    torch.manual_seed(0)
    mixer = Chimera(2 * variates, variates, d_state=3, dt_min=0.1, dt_max=0.5, **options)
    return prepared(mixer)  # type: ignore[return-value]


def split(system, x: Tensor) -> tuple[list[Tensor], ...]:
    """Step sizes, B and C of both kinds, as a selective system makes them of its inputs."""
    r, n = system.rank, system.d_state
    low1, low2, B1, B2, C1, C2 = system.x_proj(x).split([r, r, n, n, n, n], -1)
    pairs = zip(system.dt_projs, (low1, low2), strict=True)
    return [torch.nn.functional.softplus(p(low) + p.bias) for p, low in pairs], [B1, B2], [C1, C2]


@pytest.mark.parametrize(
    "options",
    [
        {"selective": False},
        {"bidirectional": False, "rule": "euler", "coupling": "exponential"},
        {"coupling": "none", "heads": 2},
    ],
    ids=str,
)
def test_every_form_keeps_the_contract(options: dict) -> None:
    check_mixer(Chimera(6, 3, d_state=2, **options), batch=2, length=5)


def test_with_one_variate_and_no_second_input_it_is_mambas_scan() -> None:
    mixer = made(1, bidirectional=False, rule="euler")
    (system,) = mixer.systems
    with torch.no_grad():
        system.x_proj.weight[2 * system.rank + 3 : 2 * system.rank + 6] = 0  # B2
    u = tokens(mixer, 2, 9)
    x, z = mixer._inputs(u)
    (dt, _), (B, B2), (C, _) = split(system, x[:, :, 0])
    assert not B2.any()
    A = -system.A_log[0].exp()
    y, _ = selective_scan(x[:, :, 0], dt, A, B, C, system.D, z[:, :, 0], backend="reference")
    assert_equal(mixer(u)[0], mixer.out_proj(y), "one variate", 1e-12)


def test_without_coupling_it_is_mamba_along_time_and_mamba_along_the_variates() -> None:
    mixer = made(4, bidirectional=False, rule="euler", coupling="none")
    (system,) = mixer.systems
    u = tokens(mixer, 2, 5)
    x, z = mixer._inputs(u)
    dt, B, C = split(system, x)
    y = system.D * x
    for v in range(4):
        line, step, b, c = (part[:, :, v] for part in (x, dt[0], B[0], C[0]))
        y[:, :, v] += selective_scan(line, step, -system.A_log[0].exp(), b, c, backend="reference")[0]
    for t in range(5):
        line, step, b, c = (part[:, t] for part in (x, dt[1], B[1], C[1]))
        y[:, t] += selective_scan(line, step, -system.A_log[1].exp(), b, c, backend="reference")[0]
    assert_equal(mixer(u)[0], mixer.out_proj(y * torch.nn.functional.silu(z)).flatten(2), "two Mambas", 1e-12)


def test_with_one_rate_a_head_it_is_mamba2_along_time_and_along_the_variates() -> None:
    mixer = made(4, bidirectional=False, rule="euler", coupling="none", heads=2)
    (system,) = mixer.systems
    u = tokens(mixer, 2, 5)
    x, z = mixer._inputs(u)
    dt, B, C = split(system, x)
    y = system.D * x
    A = -system.A_log[..., 0].exp()

    def dual(kind: int, *where) -> Tensor:
        parts = (part[where] for part in (x.unflatten(-1, (2, 2)), dt[kind], B[kind], C[kind]))
        line, step, b, c = parts
        return ssd(line, step, A[kind], b[:, :, None], c[:, :, None], backend="reference")[0].flatten(2)

    every = slice(None)
    for v in range(4):
        y[:, :, v] += dual(0, every, every, v)
    for t in range(5):
        y[:, t] += dual(1, every, t)
    assert_equal(mixer(u)[0], mixer.out_proj(y * torch.nn.functional.silu(z)).flatten(2), "two duals", 1e-12)


@pytest.mark.parametrize("coupling", ["held", "exponential"])
def test_without_selection_it_is_a_convolution_over_the_grid(coupling: str) -> None:
    mixer = made(4, selective=False, coupling=coupling)
    u = tokens(mixer, 2, 6)
    x, z = mixer._inputs(u)
    ahead, back = mixer.systems
    y = fft_conv_nd(x, ahead.kernel(6, 4)) + ahead.D * x
    y = y + (fft_conv_nd(x.flip(2), back.kernel(6, 4)) + back.D * x.flip(2)).flip(2)
    assert_equal(mixer(u)[0], mixer.out_proj(y * torch.nn.functional.silu(z)).flatten(2), "by FFT", 1e-9)
    with pytest.raises(ValueError, match="selective=False"):
        made(2).systems[0].kernel(3, 2)


def test_long_steps_along_the_variates_part_them() -> None:
    """With the exponential coupling abar3 and abar4 vanish; a variate then hears of no other."""

    def reach(shift: float) -> float:
        mixer = made(3, bidirectional=False, coupling="exponential")
        with torch.no_grad():
            mixer.systems[0].dt_projs[1].bias += shift
        u = tokens(mixer, 1, 6).requires_grad_()
        y = mixer(u)[0].view(1, 6, 3, 2)
        (slope,) = torch.autograd.grad(y[:, :, 2].square().sum(), u)
        seen = slope.view(6, 3, 2).abs().sum((0, 2))
        return float(seen[:2].sum() / seen[2])

    assert reach(0.0) > 1e-4
    assert reach(200.0) < 1e-12


def test_variates_are_read_in_order_and_both_ways() -> None:
    ahead, both = made(bidirectional=False), made()
    u = tokens(both, 1, 4).requires_grad_()
    for mixer, seen in ((ahead, [True, True, False]), (both, [True, True, True])):
        y = mixer(u)[0].view(1, 4, 3, 2)
        (slope,) = torch.autograd.grad(y[:, :, 1].sum(), u)
        assert (slope.view(4, 3, 2).abs().sum((0, 2)) > 0).tolist() == seen
    both.systems[1].load_state_dict(both.systems[0].state_dict())
    mirrored = u.view(1, 4, 3, 2).flip(2).flatten(2)
    assert_equal(both(mirrored)[0].view(1, 4, 3, 2).flip(2).flatten(2), both(u)[0], "mirrored", 1e-12)


def test_held_coupling_is_stable_whatever_is_learned() -> None:
    mixer = made(6, coupling="held")
    with torch.no_grad():
        for system in mixer.systems:
            system.cross.mul_(0).add_(3.0)  # tanh 0.995
    a, u, _ = mixer.systems[0].cells(mixer._inputs(tokens(mixer, 1, 300))[0], None)
    assert ((1 - a[..., 0, :]) * (1 - a[..., 3, :]) > a[..., 1, :] * a[..., 2, :]).all()
    ones = torch.zeros_like(u)
    ones[:, 0] = 1
    h, _ = scan2d(a, ones)
    assert h[:, -1].abs().max() < h.abs().max()
    loud, _ = scan2d(torch.full((4, 1), 0.9, dtype=u.dtype), ones[..., :1])
    assert loud.abs().max() > 100 * h.abs().max()


def test_norms_are_over_the_channels_of_a_variate() -> None:
    assert made(3).point_channels == 2


def test_bad_options_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        Chimera(6, variates=4)
    with pytest.raises(ValueError, match="heads=5"):
        Chimera(6, variates=3, heads=5)
    with pytest.raises(ValueError, match="no coupling 'zero'"):
        Chimera(6, coupling="zero")
    with pytest.raises(ValueError, match="no rule 'exact'"):
        Chimera(6, rule="exact")
