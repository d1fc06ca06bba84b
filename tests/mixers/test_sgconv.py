"""SGConv: the published pattern of weights, how its kernel is stretched and cut, and its frozen size."""

import math

import pytest
import torch
import torch.nn.functional as F

from hippodrome.mixers.sgconv import SGConv
from hippodrome.testing.mixers import check_mixer
from hippodrome.testing.ops import close


def ones(max_length: int = 16, kernel_dim: int = 2) -> SGConv:
    """Every short kernel all ones, as its size was measured."""
    mixer = SGConv(3, max_length, kernel_dim).double()
    with torch.no_grad():
        mixer.w.fill_(1)
        mixer.norm.fill_(1)
        mixer.norm.copy_(mixer.kernel(mixer.reach).norm(dim=1, keepdim=True))
    return mixer


def test_the_weights_of_the_short_kernels_and_the_kernel_s_size():
    mixer = ones()
    expected = torch.tensor([1.0] * 2 + [0.5] * 2 + [0.25] * 4 + [0.125] * 8, dtype=torch.float64)
    assert mixer.scales == 4
    assert mixer.norm.flatten().tolist() == pytest.approx([1.69558250] * 3, abs=1e-8)
    for row in mixer.kernel(16):
        torch.testing.assert_close(row / row[0], expected)
        assert row.norm().item() == pytest.approx(1.0)


@pytest.mark.parametrize(("length", "dim"), [(1, 4), (4, 4), (5, 4), (1024, 64), (1000, 64), (1025, 64)])
def test_how_many_short_kernels_there_are(length, dim):
    mixer = SGConv(2, length, dim)
    scales = 1 + max(0, math.ceil(math.log2(length / dim)))
    assert mixer.w.shape == (2, scales, dim)
    assert mixer.reach == dim * 2 ** (scales - 1) >= length
    assert mixer.kernel(length).shape == (2, length)


def test_stretching_is_linear_interpolation_between_the_middles_of_taps():
    mixer = SGConv(1, 32, 4).double()
    k, scale = mixer.kernel(32)[0] * mixer.norm[0], mixer.scale[0]
    for i, first in ((2, 8), (3, 16)):
        w, factor = mixer.w[0, i].detach(), 2 ** (i - 1)
        for j in range(4 * factor):
            place = min(max((j + 0.5) / factor - 0.5, 0), 3)
            low = min(int(place), 2)
            between = w[low] + (place - low) * (w[low + 1] - w[low])
            assert k[first + j].item() == pytest.approx((scale[i] * between).item(), rel=1e-6)


def test_a_shorter_kernel_is_the_beginning_of_a_longer_one():
    mixer = SGConv(3, 50, 4).double()
    whole = mixer.kernel(50)
    for length in (1, 4, 5, 8, 9, 33):
        assert torch.equal(mixer.kernel(length), whole[:, :length])


def test_the_size_is_frozen_and_saved():
    mixer, x = SGConv(4, 20, 4), torch.randn(2, 30, 4)
    assert "norm" in mixer.state_dict()
    before = mixer.norm.clone()
    first, second = mixer(x)[0], mixer(x)[0]
    assert torch.equal(first, second)
    taps = mixer.kernel(20).detach()
    with torch.no_grad():
        mixer.w.mul_(3)
    assert torch.equal(mixer.norm, before)
    close(mixer.kernel(20).detach(), 3 * taps, 1e-6, "a kernel thrice as large")
    other = SGConv(4, 20, 4)
    other.load_state_dict(mixer.state_dict())
    assert torch.equal(other(x)[0], mixer(x)[0])


def test_is_a_grouped_convolution():
    mixer = SGConv(4, 21, 4, gated=False).double()
    x = torch.randn(2, 40, 4, dtype=torch.float64)
    padded = F.pad(x.mT, (20, 0))
    expected = F.conv1d(padded, mixer.kernel(21).flip(1)[:, None], groups=4).mT + mixer.D * x
    close(mixer(x)[0], expected.detach(), 1e-10, "convolution")


def test_decays_of_its_own_for_each_channel():
    check_mixer(SGConv(4, 19, 3, decay_min=1.5, decay_max=4.0, gated=False))
    scale = SGConv(3, 16, 2, decay_min=2.0, decay_max=4.0).scale
    torch.testing.assert_close(scale[:, 1], 1 / torch.tensor([2.0, 3.0, 4.0]))


def test_the_short_kernels_train_slowly():
    mixer = SGConv.example()
    (group,) = mixer.parameter_groups()
    assert group.parameters == [mixer.w]
    assert group.max_lr == 1e-3


def test_what_cannot_be_meant_is_told():
    with pytest.raises(ValueError, match="at least one tap"):
        SGConv(4, kernel_dim=0)
    with pytest.raises(ValueError, match="positive factors"):
        SGConv(4, decay_min=0.0)
