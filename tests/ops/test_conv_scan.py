"""The convolutional scan: its contract, its reach, and the scans and convolutions inside it."""

import inspect
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from hippodrome.ops.conv_scan import BACKENDS, bytes_moved, conv_scan, flops
from hippodrome.ops.conv_scan.examples import inputs
from hippodrome.ops.linear_scan_complex import linear_scan_complex
from hippodrome.testing.ops import CHECKS, check_op, check_registration, check_threads, close, names

NAMES = names(BACKENDS)
SMALL = {"i": 2, "j": 2, "d": 1, "n": 1, "o": 1}
# PyTorch sums the gradient of a convolution's taps in parts, one a thread. The custom ops inside are those of
# the linear scan, which hold to their own contract.
APPLY = [check for check in CHECKS if check not in (check_threads, check_registration)]


@pytest.mark.parametrize("check", APPLY, ids=lambda c: c.__name__)
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "own"])
def test_contract(constant, check):
    examples = partial(inputs, constant=constant, **SMALL)
    along_time = ("u",) if constant else ("u", "a", "gain")
    check_op(conv_scan, ["torch"], examples, along_time=along_time, checks=[check])


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("w", [1, 3])
@pytest.mark.parametrize("constant", [True, False])
def test_any_taps_agree_with_the_definition(k, w, constant):
    arguments = inputs(t=6, i=5, j=4, k=k, w=w, constant=constant)
    expected = conv_scan(*arguments, backend="reference")
    for actual, value in zip(conv_scan(*arguments, backend="torch"), expected, strict=True):
        close(actual, value, 1e-12, f"{k} taps in, {w} out")


@pytest.mark.parametrize("backend", NAMES)
def test_one_tap_is_the_scan_of_every_point_by_itself(backend):
    u, a, gain, B, C, state, resets = inputs(t=9, k=1, w=1)
    y, _ = conv_scan(u, a, gain, B, C, state, resets, backend=backend)
    gain, B, C = (torch.view_as_complex(z) for z in (gain, B.flatten(1, -2), C.flatten(1, -2)))
    for p in range(u.shape[2]):
        for q in range(u.shape[3]):
            written = torch.view_as_real(gain * (u[:, :, p, q].to(B.dtype) @ B.T))
            x, _ = linear_scan_complex(a, written, state[:, p, q], resets, backend="reference")
            expected = 2 * (torch.view_as_complex(x) @ C.T).real
            close(y[:, :, p, q], expected, 1e-12, f"the point {p}, {q}")


@pytest.mark.parametrize("backend", NAMES)
def test_one_step_is_two_convolutions(backend):
    u, a, gain, B, C, _, _ = inputs(t=1, i=6, j=5)
    y, last = conv_scan(u, a, gain, B, C, backend=backend)
    kernel = torch.view_as_complex(gain)[:, None, None, None] * torch.view_as_complex(B)
    x = F.conv2d(u[:, 0].movedim(-1, 1).to(kernel.dtype), kernel, padding=1)
    expected = 2 * F.conv2d(x, torch.view_as_complex(C), padding=1).real
    close(y[:, 0].movedim(-1, 1), expected, 1e-12, "outputs")
    close(torch.view_as_complex(last).movedim(-1, 1).abs(), x.abs(), 1e-12, "moduli of the state")


@pytest.mark.parametrize("backend", NAMES)
def test_the_state_reaches_as_far_as_the_taps_in_however_long_it_runs(backend):
    u, a, gain, B, C, _, _ = inputs(b=1, t=20, i=9, j=9)
    u = torch.zeros_like(u)
    u[:, 0, 4, 4] = 1.0
    _, last = conv_scan(u, a, gain, B, C, backend=backend)
    touched = (last != 0).any(-1).any(-1)[0]
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[3:6, 3:6] = True
    assert torch.equal(touched, expected)


@pytest.mark.parametrize("backend", NAMES)
def test_a_moved_input_moves_the_output(backend):
    u, a, gain, B, C, _, _ = inputs(b=1, t=5, i=12, j=12)
    u = torch.where(torch.zeros(12, 12, 1).index_fill(0, torch.arange(3, 7), 1.0) > 0, u, 0.0)
    u[..., :3, :] = u[..., 7:, :] = 0
    y, _ = conv_scan(u, a, gain, B, C, backend=backend)
    moved, _ = conv_scan(u.roll((2, 1), (2, 3)), a, gain, B, C, backend=backend)
    close(moved, y.roll((2, 1), (2, 3)), 1e-12, "moved by two rows and a column")


def test_wrong_arguments_are_refused_with_a_sentence():
    u, a, gain, B, C, state, resets = inputs()
    unchecked = inspect.unwrap(conv_scan)  # without the shape checks of the test run
    with pytest.raises(ValueError, match="B must have the axes"):
        unchecked(u[..., :1], a, gain, B, C)
    with pytest.raises(ValueError, match="gain must have the axes"):
        unchecked(u, a, gain[None, None], B, C)
    with pytest.raises(ValueError, match="odd number of taps"):
        unchecked(u, a, gain, B[:, :, :2, :2], C)
    with pytest.raises(ValueError, match="initial_state must have the axes"):
        unchecked(u, a, gain, B, C, state[:, :2], resets)


def test_costs():
    assert flops(1, 2, 3, 4, 5, 6, 7) == 24 * (4 * 6 * 5 * 9 + 14 * 6 + 4 * 6 * 7 * 9)
    assert bytes_moved(1, 2, 3, 4, 5, 6, 7) == 4 * (24 * 12 + 4 * 12 * 6 + 24 + 12 * 9 * 12)


@pytest.mark.compiled
def test_compiles_whole():
    arguments = inputs(t=4, dtype=torch.float32)
    compiled = torch.compile(lambda *z: conv_scan(*z), backend="aot_eager", fullgraph=True)
    close(compiled(*arguments)[0], conv_scan(*arguments)[0], 1e-5, "compiled")
