"""The long convolution: its soft threshold, its support, and exactness at resets of any kind."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.mixers.base import run_steps
from hippodrome.mixers.long_conv import LongConv
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
    taps = LongConv(64, 4096, init="decay").K
    assert taps[0, :64].std().item() == pytest.approx(0.02, rel=0.3)
    assert taps[0, -64:].std().item() == pytest.approx(0.02 / math.e, rel=0.3)
    assert LongConv(8, 4096, init="random").K.std().item() == pytest.approx(0.002, rel=0.05)


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
