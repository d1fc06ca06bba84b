"""The long convolution: its soft threshold, its support, and exactness at resets of any kind."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome import config
from hippodrome.mixers.base import run_steps
from hippodrome.mixers.long_conv import LongConv
from hippodrome.ops.block_conv import block_conv
from hippodrome.testing.mixers import check_mixer
from hippodrome.testing.ops import close


def test_squash_is_a_soft_threshold_and_lets_gradients_through_above_it():
    mixer = LongConv(1, 5, squash=0.5).double()
    with torch.no_grad():
        mixer.K.copy_(torch.tensor([[1.0, -2.0, 0.4, -0.5, 0.75]]))
    kernel = mixer.kernel(5)
    torch.testing.assert_close(kernel, torch.tensor([[0.5, -1.5, 0.0, 0.0, 0.25]], dtype=torch.float64))
    kernel.sum().backward()
    assert mixer.K.grad.tolist() == [[1.0, 1.0, 0.0, 0.0, 1.0]]


def test_inputs_older_than_the_kernel_are_not_seen():
    mixer = LongConv(3, 8).double()
    x = torch.randn(1, 30, 3, dtype=torch.float64)
    other = x.clone()
    other[:, 5] += 1
    difference = (mixer(x)[0] - mixer(other)[0]).abs().sum(-1)[0]
    seen = difference > 1e-12
    assert seen[5:13].all()
    assert not seen[:5].any()
    assert not seen[13:].any()


def test_is_a_grouped_convolution():
    mixer = LongConv(4, 16).double()
    mixer.output = torch.nn.Identity()
    x = torch.randn(2, 40, 4, dtype=torch.float64)
    padded = F.pad(x.transpose(1, 2), (15, 0))
    expected = F.conv1d(padded, mixer.kernel(16).flip(1)[:, None], groups=4).transpose(1, 2) + mixer.D * x
    close(mixer(x)[0], expected.detach(), 1e-11, "convolution")


@given(
    t=st.integers(1, 70),
    length=st.integers(1, 40),
    marks=st.lists(st.integers(0, 69), max_size=8),
    remembered=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_resets_anywhere_are_separate_runs(t, length, marks, remembered):
    mixer = LongConv(2, length).double()
    x = torch.randn(2, t, 2, dtype=torch.float64)
    resets = torch.zeros(2, t, dtype=torch.bool)
    for mark in marks:
        resets[mark % 2, mark % t] = True
    state = mixer.init_state(2)
    state = type(state)(torch.randn_like(state.window)) if remembered else None
    y, last = mixer(x, state, resets=resets)
    expected, window = run_steps(mixer, x, state, resets=resets)
    close(y, expected, 1e-10, "outputs")
    assert torch.allclose(last.window, window.window)


def test_nothing_before_a_reset_passes_it_even_if_it_is_not_a_number():
    mixer = LongConv(2, 20).double()
    x = torch.randn(1, 50, 2, dtype=torch.float64)
    x[:, 20] = math.nan
    resets = torch.zeros(1, 50, dtype=torch.bool)
    resets[:, 21] = True
    y, state = mixer(x, resets=resets)
    assert y[:, 21:].isfinite().all()
    assert state.window.isfinite().all()


def test_initial_kernels():
    """The first channel's fading start has amplitude 0.02 at its first tap and exp(-1) of it at its last."""
    taps = LongConv(64, 4096, init="double_exp").K
    assert taps[0, :64].std().item() == pytest.approx(0.02, rel=0.3)
    assert taps[0, -64:].std().item() == pytest.approx(0.02 / math.e, rel=0.3)
    assert LongConv(8, 4096, init="random").K.std().item() == pytest.approx(0.002, rel=0.05)


def test_double_exponential_is_the_published_table():
    """Amplitude 0.02 at tap 0 and, at the rate of channel 0, exp(-1) of it a whole kernel later."""
    d, length = 6, 20
    torch.manual_seed(3)
    taps = LongConv(d, length).double().K
    torch.manual_seed(3)
    noise = torch.randn(d, length, dtype=torch.float64)
    for i in range(d):
        for j in range(length):
            amplitude = 0.02 * math.exp(-(j / length) * (d / 2) ** (i / d))
            assert taps[i, j].item() == pytest.approx(amplitude * noise[i, j].item(), rel=1e-6)
    torch.manual_seed(3)
    assert torch.equal(LongConv(d, length, init="decay").double().K, taps)


@pytest.mark.parametrize("width", [1, 3, 7, 21])
def test_smoothing_by_the_mean_of_neighbours_comes_before_the_threshold(width):
    mixer = LongConv(3, 15, squash=0.001, smooth="mean", smooth_width=width).double()
    K, half = mixer.K.detach(), width // 2
    expected = torch.zeros(3, 15, dtype=torch.float64)
    for j in range(15):
        mean = K[:, max(0, j - half) : j + half + 1].sum(1) / width
        expected[:, j] = mean.sign() * (mean.abs() - 0.001).clamp_min(0)
    for length in (1, 4, 14, 15):
        torch.testing.assert_close(mixer.kernel(length), expected[:, :length])


def test_smoothing_of_frequencies_by_a_gaussian():
    mixer = LongConv(2, 12, squash=0.0, smooth="gaussian", smooth_width=3).double()
    spectrum = torch.fft.rfft(mixer.K.detach())
    expected = spectrum.clone()
    expected[:, 1:] += math.exp(-0.5) * spectrum[:, :-1]
    expected[:, :-1] += math.exp(-0.5) * spectrum[:, 1:]
    torch.testing.assert_close(mixer.kernel(12), torch.fft.irfft(expected, 12))
    torch.testing.assert_close(mixer.kernel(5), mixer.kernel(12)[:, :5])


@pytest.mark.parametrize("smooth", ["mean", "gaussian"])
def test_smoothed_kernels_keep_the_contract(smooth):
    check_mixer(LongConv(4, max_length=10, smooth=smooth, gated=False))


@pytest.mark.parametrize("smooth", ["none", "mean", "gaussian"])
def test_kernels_are_made_in_full_precision_under_autocast_and_kept_so(smooth):
    mixer = LongConv(4, max_length=10, smooth=smooth, gated=False).eval()
    x = torch.randn(2, 4)
    with torch.no_grad():
        full, _ = mixer.step(x, mixer.init_state(2))
        mixer._memo.clear()
        for cast in (True, False):
            with torch.autocast("cpu", torch.bfloat16, enabled=cast):
                close(mixer.step(x, mixer.init_state(2))[0], full, 1e-6, f"step, autocast {cast}")


def test_many_steps_in_place_are_the_forward_call_also_past_a_change_of_the_kernel():
    mixer = LongConv(3, 9).double().eval()
    x = torch.randn(2, 30, 3, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(2):
            state = mixer.init_state(2)
            y = torch.stack([mixer.advance_(x[:, t], state) for t in range(30)], 1)
            close(y, mixer(x)[0], 1e-10, "steps in place")
            mixer.K.mul_(2)


def test_both_directions_are_one_kernel_over_lags_of_both_signs():
    """The reversed branch of a layer of two directions begins at the next token, as published."""
    spec = config.stack_spec("bi-long_conv", 4, 1, options={"long_conv": {"max_length": 7}})
    layer = config.build(spec["blocks"][0]["mixer"], "mixers").double()
    layer.output = torch.nn.Identity()
    x = torch.randn(2, 25, 4, dtype=torch.float64)
    y, _ = block_conv(x, layer.ahead.kernel(7), None, layer.back.kernel(7))
    skip = layer.ahead.D * x
    skip[:, :-1] += layer.back.D * x[:, 1:]
    close(layer(x)[0], (y + skip).detach(), 1e-10, "two kernels")


def test_dropout_of_taps_in_training_only():
    mixer = LongConv(4, 512, squash=0.0, kernel_dropout=0.5)
    assert 0.4 < (mixer.kernel(512) == 0).float().mean().item() < 0.6
    mixer.eval()
    assert torch.equal(mixer.kernel(512), mixer.K)


def test_the_kernel_trains_slowly_without_decay():
    mixer = LongConv.example()
    (group,) = mixer.parameter_groups()
    assert group.parameters == [mixer.K]
    assert group.max_lr == 1e-3
    assert group.decay is False


def test_unknown_words_are_named():
    with pytest.raises(ValueError, match="no init 'ones'"):
        LongConv(4, init="ones")
    with pytest.raises(ValueError, match="at least one tap"):
        LongConv(4, 0)
    with pytest.raises(ValueError, match="no smooth 'median'"):
        LongConv(4, smooth="median")
    with pytest.raises(ValueError, match="odd number"):
        LongConv(4, smooth="mean", smooth_width=4)
