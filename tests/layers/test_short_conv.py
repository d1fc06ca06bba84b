"""The short convolution against torch's depthwise one, and its window."""

import pytest
import torch

from hippodrome.layers.short_conv import NoConv, ShortConv


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("taps", [1, 2, 4])
def test_equals_a_padded_depthwise_convolution(taps: int, bias: bool) -> None:
    conv = ShortConv(3, taps, bias=bias).double()
    peer = torch.nn.Conv1d(3, 3, taps, groups=3, padding=taps - 1, bias=bias).double()
    peer.load_state_dict(conv.state_dict())
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    y, window = conv(x, None, None)
    torch.testing.assert_close(y, peer(x.transpose(1, 2))[..., :7].transpose(1, 2))
    torch.testing.assert_close(window, x[:, 7 - (taps - 1) :])


@pytest.mark.parametrize("bias", [True, False])
def test_steps_equal_the_whole(bias: bool) -> None:
    conv = ShortConv(3, 4, silu=True, bias=bias).double()
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    y, last = conv(x, None, None)
    window, own = conv.init_window(2), conv.init_window(2)
    for t in range(7):
        y_t, window = conv.step(x[:, t], window)
        torch.testing.assert_close(y_t, y[:, t])
        with torch.no_grad():
            torch.testing.assert_close(conv.advance_(x[:, t], own), y_t)
    torch.testing.assert_close(window, last)
    torch.testing.assert_close(own, last)


def test_no_convolution_keeps_nothing_and_changes_nothing() -> None:
    conv = NoConv(3)
    x = torch.randn(2, 7, 3)
    y, window = conv(x, None, None)
    assert y is x
    assert window.shape == (2, 0, 3)
    assert conv.state_dict() == {}


def test_no_taps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one tap; got 0"):
        ShortConv(3, 0)
