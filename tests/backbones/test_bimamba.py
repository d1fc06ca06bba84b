"""BiMamba: two Mambas written out, shared maps and their gradients, symmetries, pieces, Vim's mean."""

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F

from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.backbones.bimamba import BiMamba
from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.mamba import Mamba
from hippodrome.testing.mixers import check_noncausal, prepared

WAYS = pytest.mark.parametrize("combine", ["add", "mean", "multiply"])
TIED = pytest.mark.parametrize("tied", [True, False])


def made(**options) -> BiMamba:
    torch.manual_seed(0)
    return prepared(BiMamba(6, d_state=3, **options))


@WAYS
@TIED
def test_contract(tied, combine):
    check_noncausal(BiMamba(6, tied, combine, d_state=3), 9)


def test_weights_may_be_bfloat16():
    mixer = BiMamba(6, d_state=3)
    x, resets = torch.randn(2, 9, 6), torch.zeros(2, 9, dtype=torch.bool)
    resets[0, 4] = True
    single, half = mixer(x, resets=resets)[0], mixer.bfloat16()(x.bfloat16(), resets=resets)[0]
    assert half.dtype == torch.bfloat16
    assert (half.float() - single).abs().max() < 0.1 * single.abs().max()


@WAYS
@TIED
@pytest.mark.parametrize("options", [{}, {"proj_bias": True, "norms": "learned", "A_init": "s4d-lin"}])
def test_is_two_mambas(tied, combine, options):
    mixer = made(tied=tied, combine=combine, **options)
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    y, z = mixer.mamba_fwd(x)[0], mixer.mamba_rev(x.flip(1))[0].flip(1)
    expected = {"add": y + z, "mean": (y + z) / 2, "multiply": y * z}[combine]
    torch.testing.assert_close(mixer(x)[0], expected, rtol=1e-9, atol=1e-12)


def test_untied_and_added_it_is_the_layer_of_two_directions():
    mixer = made(tied=False)
    resets = torch.zeros(2, 9, dtype=torch.bool)
    resets[0, 4] = resets[1, 7] = True
    x, dt = torch.randn(2, 9, 6, dtype=torch.float64), 0.5 + torch.rand(2, 9, dtype=torch.float64)
    other = Bidirectional(mixer.mamba_fwd, mixer.mamba_rev, "shared")
    torch.testing.assert_close(mixer(x, resets=resets, dt=dt)[0], other(x, resets=resets, dt=dt)[0])


def test_tied_maps_are_one_and_gather_the_gradients_of_both_directions():
    mixer = made()
    apart = made(tied=False)
    apart.load_state_dict(mixer.state_dict())
    forward, back = dict(mixer.mamba_fwd.named_parameters()), dict(mixer.mamba_rev.named_parameters())
    for name in forward:
        assert (forward[name] is back[name]) == ("_proj" in name and name[:2] in ("in", "ou")), name
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    for each in (mixer, apart):
        each(x)[0].square().sum().backward()
    for name in ("in_proj", "out_proj"):
        one = getattr(mixer.mamba_fwd, name).weight
        assert one.data_ptr() == getattr(mixer.mamba_rev, name).weight.data_ptr()
        both = getattr(apart.mamba_fwd, name).weight.grad + getattr(apart.mamba_rev, name).weight.grad
        torch.testing.assert_close(one.grad, both, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(mixer.mamba_rev.D.grad, apart.mamba_rev.D.grad)


def test_the_tie_outlives_copies_conversions_and_the_meta_device():
    with torch.device("meta"):
        meta = BiMamba(6, d_state=3)
    for mixer in (copy.deepcopy(made()), made().bfloat16(), meta.to_empty(device="cpu")):
        for name in ("in_proj", "out_proj"):
            assert getattr(mixer.mamba_fwd, name).weight is getattr(mixer.mamba_rev, name).weight


def test_the_parameters_are_those_of_two_mambas_less_one_pair_of_maps():
    d, e, n, r, w = 32, 64, 16, 2, 4
    shared, own = 3 * d * e, e * (w + 1) + e * (r + 2 * n) + e * (r + 1) + e * n + e
    assert sum(p.numel() for p in BiMamba(d).parameters()) == shared + 2 * own
    assert sum(p.numel() for p in BiMamba(d, tied=False).parameters()) == 2 * (shared + own)


@TIED
def test_swapped_directions_of_a_reversed_input_reverse_the_output(tied):
    mixer, x = made(tied=tied), torch.randn(2, 9, 6, dtype=torch.float64)
    expected = mixer(x)[0].flip(1)
    mixer.mamba_fwd, mixer.mamba_rev = mixer.mamba_rev, mixer.mamba_fwd
    torch.testing.assert_close(mixer(x.flip(1))[0], expected)


@WAYS
def test_a_palindrome_between_equal_directions_stays_one(combine):
    mixer = made(combine=combine)
    mixer.mamba_rev.load_state_dict(mixer.mamba_fwd.state_dict())
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    x = torch.cat([x, x[:, :-1].flip(1)], 1)
    y, _ = mixer(x)
    torch.testing.assert_close(y, y.flip(1))
    assert (y[:, :4] - y[:, 1:5]).abs().max() > 1e-3


def test_the_mean_of_shared_maps_is_the_mixer_of_vim():
    # Written after its description: one map in, the gate in both scans, the sum halved before the map out.
    mixer = made(combine="mean")
    x = torch.randn(1, 5, 6, dtype=torch.float64)
    inner, gate = mixer.mamba_fwd.in_proj(x).chunk(2, -1)
    total = 0
    for part, turn in ((mixer.mamba_fwd, False), (mixer.mamba_rev, True)):
        u = inner.flip(1) if turn else inner
        taps = part.conv1d.weight
        u = F.silu(F.conv1d(F.pad(u.mT, (3, 0)), taps, part.conv1d.bias, groups=12).mT)
        low, B, C = part.x_proj(u).split([1, 3, 3], -1)
        dt = F.softplus(low @ part.dt_proj.weight.T + part.dt_proj.bias)
        h, rows = torch.zeros(12, 3, dtype=torch.float64), []
        for t in range(5):
            h = torch.exp(-dt[0, t, :, None] * part.A_log.exp()) * h + (dt * u)[0, t, :, None] * B[0, t]
            rows.append(h @ C[0, t] + part.D * u[0, t])
        y = torch.stack(rows)[None]
        total = total + (y.flip(1) if turn else y) * F.silu(gate)
    torch.testing.assert_close(mixer(x)[0], mixer.mamba_fwd.out_proj(total / 2), rtol=1e-9, atol=1e-12)


@TIED
def test_a_stack_scales_every_map_that_writes_its_stream_once(tied):
    first, second = BiMamba(6, tied), BiMamba(6, tied)
    before = [first.mamba_fwd.out_proj.weight.clone(), first.mamba_rev.out_proj.weight.clone()]
    Stack([Block(first), Block(second)])
    for part, old in zip((first.mamba_fwd, first.mamba_rev), before, strict=True):
        torch.testing.assert_close(part.out_proj.weight, old / 2**0.5)


def test_every_option_of_mamba_reaches_both_directions():
    ours, theirs = (inspect.signature(kind.__init__).parameters for kind in (BiMamba, Mamba))
    for name in set(ours) - {"self", "tied", "combine"}:
        assert ours[name].default == theirs[name].default, name
    given = {"d_inner": 10, "taps": 3, "dt_rank": 2, "norms": "weightless", "proj_bias": True, "groups": 5}
    given |= {"conv_bias": False, "select_B": False, "A_init": "half", "norm_eps": 1e-3}
    mixer, one = BiMamba(6, **given), Mamba(6, **given)
    for part in (mixer.mamba_fwd, mixer.mamba_rev):
        assert {n: p.shape for n, p in part.named_parameters()} == {
            n: p.shape for n, p in one.named_parameters()
        }
        assert part.dt_layernorm.eps == 1e-3


def test_an_unknown_way_to_combine_is_refused():
    with pytest.raises(ValueError, match="expected one of add, mean, multiply"):
        BiMamba(6, combine="concatenate")
