"""Hydra: its fixture, its matrix against the formula, symmetries, pieces, a convolution around each token."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.backbones._pieces import CenteredConv, unpack
from hippodrome.backbones._quasiseparable import quasiseparable
from hippodrome.backbones.hydra import Hydra
from hippodrome.testing.mixers import check_noncausal, prepared


def made(**options) -> Hydra:
    torch.manual_seed(0)
    return prepared(Hydra(6, d_state=3, head_dim=4, chunk=4, **options))


@pytest.mark.parametrize("groups", [1, 3])
def test_contract(groups):
    check_noncausal(Hydra(6, d_state=3, head_dim=4, groups=groups, chunk=4), 11)


def test_weights_may_be_bfloat16():
    mixer = Hydra(6, d_state=3, head_dim=4, groups=3, chunk=4)
    x, resets = torch.randn(2, 9, 6), torch.zeros(2, 9, dtype=torch.bool)
    resets[0, 4] = True
    single, half = mixer(x, resets=resets)[0], mixer.bfloat16()(x.bfloat16(), resets=resets)[0]
    assert half.dtype == torch.bfloat16
    assert (half.float() - single).abs().max() < 0.1 * single.abs().max()


def test_the_fixture_of_a_halving_state():
    ones = torch.ones(1, 5, 1, dtype=torch.float64)
    steps = torch.full((1, 5, 2), math.log(2), dtype=torch.float64)
    both = ones.repeat(1, 1, 2)
    rate = -torch.ones(1, dtype=torch.float64)
    y = quasiseparable(ones, both, both, steps, rate, ones, groups=1, d_state=1, chunk=2)
    expected = [2.2996509635, 2.9061547465, 3.0794415417, 2.9061547465, 2.2996509635]
    torch.testing.assert_close(y.flatten(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-11)


def drawn(t: int, heads: int = 4, groups: int = 2, n: int = 3) -> dict:
    def some(*shape: int) -> torch.Tensor:
        return torch.randn(2, t, *shape, dtype=torch.float64)

    return {
        "ahead": some(2 * groups * n),
        "back": some(2 * groups * n),
        "steps": some(2 * heads).exp(),
        "A": -torch.rand(heads, dtype=torch.float64) - 0.1,
        "diagonal": some(heads),
    }


def matrix_of(parts: dict, groups: int, n: int, resets: torch.Tensor | None = None) -> torch.Tensor:
    """Row by row, from unit vectors in every head, (b, h, i, j)."""
    b, t, heads = parts["diagonal"].shape
    columns = []
    for j in range(t):
        unit = torch.zeros(b, t, heads, dtype=torch.float64)
        unit[:, j] = 1
        y = quasiseparable(unit, **parts, resets=resets, groups=groups, d_state=n, chunk=4)
        columns.append(y.mT)
    return torch.stack(columns, -1)


def test_its_matrix_is_the_formula():
    t, heads, groups, n = 7, 4, 2, 3
    parts = drawn(t)
    M = matrix_of(parts, groups, n)
    B, C = (x.unflatten(-1, (groups, n)) for x in parts["ahead"].chunk(2, -1))
    U, V = (x.unflatten(-1, (groups, n)) for x in parts["back"].chunk(2, -1))
    ahead, back = parts["steps"].chunk(2, -1)
    for row in range(2):
        for h in range(heads):
            g, a = h // (heads // groups), parts["A"][h]
            for i in range(t):
                for j in range(t):
                    if i == j:
                        expected = parts["diagonal"][row, i, h]
                    elif i > j:
                        decay = torch.exp(a * ahead[row, j + 1 : i, h].sum())
                        expected = (C[row, i - 1, g] @ B[row, j, g]) * decay * ahead[row, j, h]
                    else:
                        decay = torch.exp(a * back[row, i + 1 : j, h].sum())
                        expected = (V[row, i + 1, g] @ U[row, j, g]) * decay * back[row, j, h]
                    torch.testing.assert_close(M[row, h, i, j], expected, rtol=1e-9, atol=1e-12)


def test_pieces_have_matrices_of_their_own():
    parts = drawn(7)
    resets = torch.zeros(2, 7, dtype=torch.bool)
    resets[0, 3] = resets[1, 1] = resets[1, 6] = True
    M = matrix_of(parts, 2, 3, resets)
    for row, cuts in ((0, [0, 3, 7]), (1, [0, 1, 6, 7])):
        outside = torch.ones(7, 7, dtype=torch.bool)
        for i, j in pairwise(cuts):
            piece = {k: x if k == "A" else x[row : row + 1, i:j] for k, x in parts.items()}
            torch.testing.assert_close(M[row : row + 1, :, i:j, i:j], matrix_of(piece, 2, 3))
            outside[i:j, i:j] = False
        assert (M[row][:, outside] == 0).all()


@torch.no_grad()
def test_the_layer_reads_its_channels_by_its_hidden_attention():
    mixer, x = made(groups=3), torch.randn(2, 7, 6, dtype=torch.float64)
    resets = torch.zeros(2, 7, dtype=torch.bool)
    resets[1, 4] = True
    M = mixer.hidden_attention(x, resets)
    assert not M[1, :, 4:, :4].any()
    assert not M[1, :, :4, 4:].any()
    z, inner, *_ = mixer._driven(x, resets, None)
    y = torch.einsum("bhij,bjhp->bihp", M, inner.unflatten(-1, (mixer.heads, -1))).flatten(-2)
    torch.testing.assert_close(mixer.out_proj(mixer.norm(y, z)), mixer(x, resets=resets)[0])
    dt = mixer._driven(x, None, None)[4]
    torch.testing.assert_close(mixer.log_decays(x), -dt * mixer.A_log.exp().repeat(2))


def test_swapped_directions_of_a_reversed_input_reverse_the_output():
    mixer, x = made(groups=3), torch.randn(2, 9, 6, dtype=torch.float64)
    dt = 0.5 + torch.rand(2, 9, dtype=torch.float64)
    expected = mixer(x)[0].flip(1)
    inner, each, heads = 12, 2 * 3 * 3, 3
    order = torch.arange(2 * inner + 2 * each + 2 * heads)
    swap = [*order[: 2 * inner], *order[2 * inner + each : -2 * heads], *order[2 * inner : 2 * inner + each]]
    swap = torch.stack([*swap, *order[-heads:], *order[-2 * heads : -heads]])
    with torch.no_grad():
        mixer.in_proj.weight.copy_(mixer.in_proj.weight[swap])
        mixed = swap[inner : inner + inner + 2 * each] - inner
        mixer.conv1d.weight.copy_(mixer.conv1d.weight[mixed].flip(-1))
        mixer.conv1d.bias.copy_(mixer.conv1d.bias[mixed])
    torch.testing.assert_close(mixer(x.flip(1))[0], expected)
    assert (mixer(x, dt=dt)[0] - mixer(x)[0]).abs().max() > 1e-6


def silenced(**options) -> Hydra:
    """Nothing written into the states: the rows of B are zero, in both directions."""
    mixer = made(**options)
    with torch.no_grad():
        for first in (24, 30):
            mixer.in_proj.weight[first : first + 3] = 0
            mixer.conv1d.bias[first - 12 : first - 9] = 0
    return mixer


def diagonal(mixer: Hydra, x: torch.Tensor) -> torch.Tensor:
    """The output where only the diagonal is left."""
    z, mixed = mixer.in_proj(x)[..., :12], mixer.in_proj(x)[..., 12:24]
    taps, bias = mixer.conv1d.weight[:12], mixer.conv1d.bias[:12]
    inner = F.silu(F.conv1d(mixed.mT, taps, bias, padding=3, groups=12).mT)
    y = (inner @ mixer.fc_D.weight.T + mixer.D).repeat_interleave(4, -1) * inner
    norm = y * (y.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * mixer.norm.weight
    return (norm * F.silu(z)) @ mixer.out_proj.weight.T


def test_without_writes_only_the_diagonal_is_left():
    mixer, x = silenced(), torch.randn(2, 8, 6, dtype=torch.float64)
    torch.testing.assert_close(mixer(x)[0], diagonal(mixer, x), rtol=1e-9, atol=1e-12)


def test_one_token_meets_the_diagonal_alone():
    mixer, x = made(), torch.randn(3, 1, 6, dtype=torch.float64)
    torch.testing.assert_close(mixer(x)[0], diagonal(mixer, x), rtol=1e-9, atol=1e-12)


def test_time_is_that_to_the_neighbour_on_the_side_of_the_reader():
    mixer, x = made(dt_low=1e-3), torch.randn(1, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        mixer.conv1d.weight[:, :, :3] = mixer.conv1d.weight[:, :, 4:] = 0  # no token's neighbours in its own
    dt = 0.5 + torch.rand(1, 6, dtype=torch.float64)
    # The steps of the upper triangle are those since the token before once the row is reversed.
    sizes = mixer._step_sizes(torch.zeros(1, 6, 6).double(), None, dt) / mixer._step_sizes(
        torch.zeros(1, 6, 6).double(), None, None
    )
    torch.testing.assert_close(sizes[..., :3], dt[..., None].expand(1, 6, 3))
    later = torch.cat([dt[:, 1:], dt[:, -1:]], 1)
    torch.testing.assert_close(sizes[..., 3:], later[..., None].expand(1, 6, 3))
    torch.testing.assert_close(mixer(x, dt=torch.ones_like(dt))[0], mixer(x)[0])


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_no_tap_of_a_convolution_around_a_token_crosses_a_reset(data):
    conv = CenteredConv(3, data.draw(st.sampled_from([1, 3, 7]))).double()
    t = data.draw(st.integers(1, 12))
    marks = sorted({0, *data.draw(st.lists(st.integers(0, t - 1), max_size=4))})
    resets = torch.zeros(1, t, dtype=torch.bool)
    resets[0, marks] = True
    x = torch.randn(1, t, 3, dtype=torch.float64)
    width = conv.weight.shape[-1] // 2
    pieces = [
        F.conv1d(x[:, i:j].mT, conv.weight, conv.bias, padding=width, groups=3).mT
        for i, j in zip(marks, [*marks[1:], t], strict=True)
    ]
    torch.testing.assert_close(conv(x, resets), torch.cat(pieces, 1))
    if len(marks) == 1:
        torch.testing.assert_close(conv(x), pieces[0])


def test_pieces_are_laid_out_in_their_order():
    resets = torch.tensor([[False, False, True, False], [True, True, False, False]])
    at, lengths = unpack(resets)
    assert lengths.tolist() == [2, 2, 1, 3]
    assert at.tolist() == [[0, 1, 1], [2, 3, 3], [4, 4, 4], [5, 6, 7]]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="odd number of taps; got 4"):
        Hydra(8, taps=4)
    with pytest.raises(ValueError, match="head_dim must divide"):
        Hydra(8, head_dim=3)
    with pytest.raises(ValueError, match="groups must divide the heads"):
        Hydra(8, head_dim=4, groups=3)
