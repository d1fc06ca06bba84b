"""S4ND: the grid convolution against one axis after the other, SciPy, resolution, band limit, refusals."""

import math

import pytest
import torch
from scipy.signal import convolve2d

from hippodrome.backbones.block import Block
from hippodrome.backbones.s4nd import S4ND
from hippodrome.backbones.stack import Stack
from hippodrome.ops.fft_conv_nd import fft_conv_nd
from hippodrome.testing.mixers import check_noncausal, prepared


def made(**options) -> S4ND:
    torch.manual_seed(0)
    return prepared(S4ND(3, [5, 7], d_state=8, dt_min=0.05, dt_max=0.5, **options))


def linear(mixer: S4ND, x: torch.Tensor) -> torch.Tensor:
    """The layer before its output map."""
    mixer.output = torch.nn.Identity()
    return mixer(x)[0]


@pytest.mark.parametrize("bidirectional", [True, False])
def test_contract(bidirectional):
    check_noncausal(S4ND(3, [5, 7], d_state=8, bidirectional=bidirectional), 35, packed=False)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_rank_one_is_one_axis_after_the_other(bidirectional):
    mixer = made(bidirectional=bidirectional)
    x = torch.randn(2, 35, 3, dtype=torch.float64)
    grid = x.view(2, 5, 7, 3)
    for axis, size in enumerate((5, 7)):
        kernel = mixer.axis_kernel(axis)[0]
        shape = [3, 1, 1]
        shape[axis + 1] = kernel.shape[-1]
        origin = [0, 0]
        origin[axis] = size - 1 if bidirectional else 0
        grid = fft_conv_nd(grid, kernel.view(shape), origin)
    expected = grid.reshape(2, 35, 3) + mixer.D * x
    torch.testing.assert_close(linear(mixer, x), expected, rtol=1e-9, atol=1e-11)


def test_equals_scipys_convolution_where_it_reads_one_way():
    mixer = made(bidirectional=False, rank=2)
    x = torch.randn(1, 35, 3, dtype=torch.float64)
    y = linear(mixer, x) - mixer.D * x
    kernel = mixer.kernel().detach().numpy()
    for channel in range(3):
        full = convolve2d(x[0, :, channel].view(5, 7).numpy(), kernel[channel])[:5, :7]
        torch.testing.assert_close(y[0, :, channel].view(5, 7), torch.tensor(full), rtol=1e-9, atol=1e-11)


def test_an_impulse_answers_with_a_product_of_the_axes():
    mixer = made()
    x = torch.zeros(1, 5, 7, 3, dtype=torch.float64)
    x[0, 2, 3] = 1
    y = linear(mixer, x.view(1, 35, 3)) - mixer.D * x.view(1, 35, 3)
    rows, columns = mixer.axis_kernel(0)[0], mixer.axis_kernel(1)[0]
    # Lag zero stands at 4 along the rows and at 6 along the columns.
    expected = torch.einsum("di,dj->ijd", rows[:, 4 - 2 : 4 + 3], columns[:, 6 - 3 : 6 + 4])
    torch.testing.assert_close(y.view(5, 7, 3), expected, rtol=1e-9, atol=1e-11)


def test_the_mean_over_ranks_is_taken():
    mixer = made(rank=3)
    whole = torch.zeros(3, 9, 13, dtype=torch.float64)
    for r in range(3):
        whole += torch.einsum("di,dj->dij", mixer.axis_kernel(0)[r], mixer.axis_kernel(1)[r]) / 3
    torch.testing.assert_close(mixer.kernel(), whole)


def test_twice_the_rate_is_two_steps_at_once_along_each_axis():
    # Zero-order hold, exactly: K at 2 dt [l] = K at dt [2 l] + K at dt [2 l + 1].
    fine = prepared(S4ND(2, [8, 6], d_state=6, bidirectional=False, dt_min=0.05, dt_max=0.5))
    coarse = prepared(S4ND(2, [4, 3], d_state=6, bidirectional=False, rate=2.0))
    coarse.load_state_dict(fine.state_dict())
    for axis in range(2):
        kernel = fine.axis_kernel(axis)
        torch.testing.assert_close(
            coarse.axis_kernel(axis), kernel[..., ::2] + kernel[..., 1::2], rtol=1e-10, atol=1e-12
        )


def test_a_band_limit_leaves_out_exactly_the_states_above_it():
    limit = 0.2
    free, limited = made(init="lin"), made(init="lin", bandlimit=limit)
    with torch.no_grad():
        limited.load_state_dict(free.state_dict())
        dropped = 0
        for mine, theirs in zip(free.axes, limited.axes, strict=True):
            cycles = mine.log_dt.exp()[:, None] * mine.A_imag.abs() / (2 * math.pi)
            above = cycles >= limit / 2
            dropped += int(above.sum())
            mine.C[above] = 0
            torch.testing.assert_close(theirs.kernel(9, 1.0), mine.kernel(9, 1.0))
    assert 0 < dropped < free.axes[0].C.shape[0] * 8


def test_it_trains_inside_a_stack():
    stack = Stack([Block(S4ND(6, [4, 5], d_state=4)), Block(S4ND(6, [4, 5], d_state=4))])
    assert not stack.causal
    x = torch.randn(3, 20, 6)
    stack(x)[0].square().mean().backward()
    for name, parameter in stack.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize(
    "options",
    [{"sizes": []}, {"sizes": [0]}, {"rank": 0}, {"init": "other"}, {"rate": 0.0}, {"bandlimit": -1.0}],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=r".*\.$"):
        S4ND(**{"d_model": 3, "sizes": [4], **options})


def test_a_grid_of_another_size_is_refused():
    with pytest.raises(ValueError, match="whole grids of 4 x 5 = 20 tokens"):
        S4ND.example()(torch.zeros(1, 21, 6))
    with pytest.raises(ValueError, match="no resets"):
        S4ND.example()(torch.zeros(1, 20, 6), resets=torch.zeros(1, 20, dtype=torch.bool))
