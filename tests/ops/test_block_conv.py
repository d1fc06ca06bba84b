"""The convolution with a state: its contract, blocks of every size, both directions, and what it keeps."""

import inspect
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.ops.block_conv import block_conv, blocks_, one_piece
from hippodrome.ops.block_conv.examples import inputs
from hippodrome.testing.ops import CHECKS, check_op, close

# Inputs ahead have no meaning without a kernel for them, and a state alone joins no pieces that read them.
BOTH_WAYS = [c for c in CHECKS if c.__name__ not in ("check_chunks_join", "check_optional", "check_threads")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("backend", ["blocks", "torch"])
def test_contract(backend, check):
    """Causal: the state alone joins pieces."""
    options = {"block": None, "back": None, "ahead": None}

    def door(x, kernel, initial_state=None, *, backend=None, block=None, back=None, ahead=None):
        return block_conv(x, kernel, initial_state, back, ahead, block=block, backend=backend)

    def examples(**sizes):
        return inputs(**sizes)[:3]

    check_op(door, [backend], examples, along_time=("x",), options=options, checks=[check])


@pytest.mark.parametrize("check", BOTH_WAYS, ids=lambda c: c.__name__)
@pytest.mark.parametrize(("backend", "block"), [("blocks", 3), ("torch", None)])
def test_contract_of_both_directions(backend, block, check):
    example = partial(inputs, length=5, later=7)
    check_op(block_conv, [backend], example, along_time=("x",), options={"block": block}, checks=[check])


@given(
    t=st.integers(1, 60),
    length=st.integers(1, 40),
    later=st.integers(0, 30),
    block=st.sampled_from([None, 1, 2, 5, 16, 64]),
    remembered=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_equals_a_grouped_convolution_whatever_the_block(t, length, later, block, remembered):
    x, kernel, state, back, ahead = inputs(t=t, length=length, later=later, with_state=remembered)
    before = torch.zeros(2, length - 1, 3, dtype=torch.float64) if state is None else state
    after = torch.zeros(2, later, 3, dtype=torch.float64) if ahead is None else ahead
    line = torch.cat([before, x, after], 1).mT
    taps = kernel.flip(1) if back is None else torch.cat([kernel.flip(1), back], 1)
    expected = F.conv1d(line, taps[:, None], groups=3).mT
    y, last = block_conv(x, kernel, state, back, ahead, block=block, backend="blocks")
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-11)
    assert torch.equal(last, torch.cat([before, x], 1)[:, t:])


@given(cuts=st.lists(st.integers(1, 99), max_size=5), length=st.sampled_from([1, 2, 9, 100, 130]))
@settings(max_examples=15, deadline=None)
def test_pieces_that_hand_the_state_on_are_one_piece(cuts, length):
    x, kernel, state, _, _ = inputs(t=100, length=length)
    whole, last = block_conv(x, kernel, state, block=16)
    pieces = []
    for first, end in zip([0, *sorted(set(cuts))], [*sorted(set(cuts)), 100], strict=True):
        y, state = block_conv(x[:, first:end], kernel, state)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-9, atol=1e-11)
    assert torch.equal(state, last)


@pytest.mark.parametrize("groups", [1 << 10, 1 << 12])
def test_groups_of_rows_and_channels_change_nothing(groups, monkeypatch):
    """Channels that do not divide into groups, rows that do not, several blocks and parts."""
    x, kernel, state, back, ahead = inputs(b=5, t=90, d=37, length=40, later=13)
    leaves = [z.requires_grad_() for z in (x, kernel, state, back, ahead)]
    weights = torch.randn(x.shape, dtype=torch.float64)
    expected = block_conv(*leaves, backend="reference")[0]
    slopes = torch.autograd.grad((expected * weights).sum(), leaves)
    monkeypatch.setattr(blocks_, "GROUP", groups)
    monkeypatch.setattr(blocks_, "LINE", 3)
    y = block_conv(*leaves, block=25)[0]
    assert blocks_.plan(5, 90, 37, 53, 25, groups)[3:] != (5, 37)
    close(y, expected, 1e-9, "outputs")
    for name, found, wanted in zip(
        ("x", "kernel", "state", "back", "ahead"),
        torch.autograd.grad((y * weights).sum(), leaves),
        slopes,
        strict=True,
    ):
        close(found, wanted, 1e-9, f"gradient to {name}")


def test_what_a_call_needs_does_not_grow_with_the_length():
    """Points of a group's transforms, for a short kernel and for one as long as the input."""
    for short in (64, 1000):
        room = {t: _room(blocks_.plan(8, t, 256, short, None)) for t in (1 << 16, 1 << 20, 1 << 24)}
        assert len(set(room.values())) == 1
    for t in (1 << 16, 1 << 20, 1 << 24, 1 << 28):
        cut = blocks_.plan(8, t, 256, t, None)
        assert _room(cut) <= 4 * blocks_.LONGEST
        assert cut.points <= blocks_.LONGEST


def _room(cut) -> int:
    return cut.points * cut.rows * cut.channels


def test_an_impulse_at_the_last_step_wraps_nowhere():
    x = torch.zeros(1, 96, 2, dtype=torch.float64)
    x[:, -1] = 1
    kernel = torch.randn(2, 96, dtype=torch.float64)
    for block in (None, 32):
        y, _ = block_conv(x, kernel, block=block)
        assert y[:, :-1].abs().sum() < 1e-12
        torch.testing.assert_close(y[0, -1], kernel[:, 0])


def test_what_does_not_fit_is_told():
    x, kernel, state, _, ahead = inputs(later=4)
    with pytest.raises(ValueError, match="1 output or more"):
        block_conv(x, kernel, block=0)
    with pytest.raises(ValueError, match="without a kernel `back`"):
        block_conv(x, kernel, state, None, ahead)
    with pytest.raises(ValueError, match="1 tap or more"):
        block_conv(x, kernel[:, :0])


def test_tensors_that_do_not_fit_are_told():
    x, kernel, state, back, ahead = inputs(later=4)
    unchecked = inspect.unwrap(block_conv)  # without the shape checks of the test run
    with pytest.raises(ValueError, match=r"initial_state must have the axes \(b l-1 d\) with l-1 = 10"):
        unchecked(x, kernel, state[:, 1:])
    with pytest.raises(ValueError, match=r"ahead must have .* with m = 4"):
        unchecked(x, kernel, state, back, ahead[:, 1:])


@pytest.mark.compiled
def test_compiles_whole():
    x, kernel, state, _, _ = inputs(dtype=torch.float32)
    compiled = torch.compile(lambda *z: block_conv(*z), backend="aot_eager", fullgraph=True)
    x.requires_grad_()
    y, last = compiled(x, kernel, state)
    (slope,) = torch.autograd.grad(y.square().sum(), x)
    expected, after = block_conv(x, kernel, state)
    torch.testing.assert_close(slope, torch.autograd.grad(expected.square().sum(), x)[0])
    assert torch.equal(last, after)


def test_the_whole_goes_through_one_transform_only_where_that_is_bounded_and_saves_something() -> None:
    assert one_piece(8, 4096, 256, 4096)
    assert not one_piece(8, 1024, 256, 1024)  # by blocks it stays in a cache
    assert not one_piece(8, 65536, 256, 65536)  # half a GiB would not hold the padded input
    assert not one_piece(8, 65536, 16, 64)  # few taps: short transforms are less work
    x, kernel = torch.randn(1, 4096, 2), torch.randn(2, 4096)
    y, state = block_conv(x, kernel)
    assert torch.equal(y, block_conv(x, kernel, backend="torch")[0])
    close(y, block_conv(x, kernel, backend="blocks")[0], 1e-5, "the same by blocks")
    assert state.shape == (1, 4095, 2)
