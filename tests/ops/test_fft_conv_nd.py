"""The global convolution over a grid: every backend, an independent oracle, no wrap-around, refusals."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.ops.fft_conv import fft_conv
from hippodrome.ops.fft_conv_nd import fft_conv_nd
from hippodrome.ops.fft_conv_nd.examples import inputs

BACKENDS = pytest.mark.parametrize("backend", ["torch", "reference"])


@BACKENDS
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 7)),
    lags=st.tuples(st.integers(1, 11), st.integers(1, 9)),
    data=st.data(),
)
@settings(max_examples=20, deadline=None)
def test_equals_the_frameworks_convolution_at_any_sizes(backend, grid, lags, data):
    origin = tuple(data.draw(st.integers(0, k - 1)) for k in lags)
    x, kernel, _ = inputs(t=grid[0], columns=grid[1], lags=lags)
    # F.conv2d correlates: the kernel is flipped, and as many zeros stand before as there are later lags.
    room = [lags[1] - 1 - origin[1] if side == 0 else origin[1] for side in (0, 1)] + [
        lags[0] - 1 - origin[0],
        origin[0],
    ]
    padded = F.pad(x.movedim(-1, 1), room)
    expected = F.conv2d(padded, kernel.flip(1, 2)[:, None], groups=kernel.shape[0]).movedim(1, -1)
    y = fft_conv_nd(x, kernel, origin, backend=backend)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-11)


def test_three_axes_and_one():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 5, 2, generator=g, dtype=torch.float64)
    kernel = torch.randn(2, 2, 3, 5, generator=g, dtype=torch.float64)
    ours = fft_conv_nd(x, kernel, (1, 0, 2))
    torch.testing.assert_close(ours, fft_conv_nd(x, kernel, (1, 0, 2), backend="reference"))
    line, taps = x[:, 0, 0], kernel[:, 0, 0]
    torch.testing.assert_close(fft_conv_nd(line, taps), fft_conv(line, taps))


@BACKENDS
def test_an_impulse_in_the_last_corner_wraps_nowhere(backend):
    x = torch.zeros(1, 6, 5, 2, dtype=torch.float64)
    x[:, -1, -1] = 1
    kernel = torch.randn(2, 6, 5, dtype=torch.float64)
    y = fft_conv_nd(x, kernel, backend=backend)
    torch.testing.assert_close(y[0, -1, -1], kernel[:, 0, 0])
    y[:, -1, -1] = 0
    assert y.abs().max() < 1e-12


def test_gradients_are_those_of_the_definition():
    x, kernel, origin = inputs(t=5, lags=(4, 3))
    assert torch.autograd.gradcheck(
        lambda a, k: fft_conv_nd(a, k, origin), (x.requires_grad_(), kernel.requires_grad_())
    )
    pull = torch.randn(x.shape, dtype=x.dtype)
    ours = torch.autograd.grad((fft_conv_nd(x, kernel, origin) * pull).sum(), (x, kernel))
    theirs = torch.autograd.grad(
        (fft_conv_nd(x, kernel, origin, backend="reference") * pull).sum(), (x, kernel)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_transforms_stay_in_float32_under_autocast():
    x, kernel, origin = inputs(t=32, columns=32, lags=(32, 63), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = fft_conv_nd(x, kernel, origin)
    assert y.dtype == torch.float32
    exact = fft_conv_nd(x.double(), kernel.double(), origin).float()
    assert float((y - exact).abs().max()) <= 1e-5 * float(exact.abs().max())


@pytest.mark.parametrize(
    ("grid", "lags", "origin"),
    [((4, 4), (3,), None), ((4, 4), (3, 3), (3, 0)), ((4, 4), (3, 3), (0,)), ((4, 4), (3, 3), (-1, 0))],
)
def test_what_does_not_fit_is_refused(grid, lags, origin):
    with pytest.raises(ValueError, match=r"fft_conv_nd: .*\.$"):
        fft_conv_nd(torch.zeros(1, *grid, 2), torch.zeros(2, *lags), origin)
