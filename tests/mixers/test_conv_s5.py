"""ConvS5 and ConvLSTM: what is peculiar to frames, against S5, torch's convolutions and a cell by hand."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.base import run_steps
from hippodrome.mixers.conv_lstm import ConvLSTM
from hippodrome.mixers.conv_s5 import ConvS5
from hippodrome.mixers.s5 import S5
from hippodrome.testing.mixers import assert_equal, check_mixer, prepared, tokens


def frames(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("maps", ["constant", "free"])
def test_with_one_tap_it_is_s5_at_every_point(maps: str) -> None:
    mixer = ConvS5(5 * 12, [3, 4], d_state=8, kernel=1, feed="skip").double()
    s5 = S5(5, d_state=8, activation="gelu").double()
    with torch.no_grad():
        for name in ("log_dt", "A", "D"):
            getattr(s5, name).copy_(getattr(mixer, name))
        s5.B.copy_(mixer.B[:, :, 0, 0])
        s5.C.copy_(mixer.C[:, :, 0, 0])
    x = frames(2, 9, 1, 1, 5).expand(2, 9, 3, 4, 5) if maps == "constant" else frames(2, 9, 3, 4, 5)
    y = mixer(x.flatten(2))[0].view(x.shape)
    for p in range(3):
        for q in range(4):
            assert_equal(y[:, :, p, q], s5(x[:, :, p, q])[0], f"the point {p}, {q}", 1e-12)
    if maps == "constant":
        assert_equal(y, y[:, :, :1, :1].expand_as(y), "all points alike", 1e-12)


@pytest.mark.parametrize(
    "options", [{"feed": "skip"}, {"activation": "glu"}, {"activation": "none", "kernel": 5}]
)
def test_every_form_keeps_the_contract(options: dict) -> None:
    check_mixer(ConvS5(12, [2, 2], d_state=4, **options), length=6)


def test_a_lstm_with_peepholes_keeps_the_contract() -> None:
    check_mixer(ConvLSTM(12, [2, 2], peepholes=True), length=6)


def test_a_step_takes_a_state_of_another_precision() -> None:
    mixer = prepared(ConvS5.example(), torch.float32)
    x = tokens(mixer, 2, 3, torch.float32)
    _, state = mixer(x)
    y, after = mixer.step(x[:, 0], type(state)(state.x.double()))
    assert torch.equal(y, mixer.step(x[:, 0], state)[0])
    assert after.x.dtype == torch.float32


def test_poles_are_held_left_of_the_axis() -> None:
    mixer = ConvS5(4, [2, 2], d_state=4)
    with torch.no_grad():
        mixer.A[..., 0] = 3.0
    assert (mixer._make().factor.norm(dim=-1) < 1).all()
    mixer.clip_eigs = False
    assert (mixer._make().factor.norm(dim=-1) > 1).all()


@pytest.mark.parametrize(
    "make", [partial(ConvS5, d_state=4, feed="skip"), ConvLSTM], ids=["conv_s5", "conv_lstm"]
)
def test_what_moves_inside_a_frame_moves_what_comes_out(make: Any) -> None:
    """Through a whole stack with its norms: nothing is learned of a place.

    The group norms of "resnet" count the whole frame, its edges too, so that form does so only nearly.
    """
    stack = Stack([Block(make(3 * 14 * 14, [14, 14]), norm="layer")]).double()
    x = torch.zeros(1, 3, 14, 14, 3, dtype=torch.float64)
    x[:, :, 5:8, 5:8] = frames(1, 3, 3, 3, 3)

    def inside(moved: torch.Tensor, first: int, last: int) -> torch.Tensor:
        return stack(moved.flatten(2))[0].view(x.shape)[:, :, first:last, first:last]

    expected = inside(x, 4, 9)
    assert expected.std() > 0.1
    assert_equal(inside(x.roll((1, 1), (2, 3)), 5, 10), expected, "moved by a row and a column", 1e-9)


def test_the_state_reaches_no_further_than_the_taps_of_b() -> None:
    mixer = ConvS5(2 * 81, [9, 9], d_state=4).double()
    x = torch.zeros(1, 25, 9, 9, 2, dtype=torch.float64)
    x[:, :3, 4, 4] = 1.0
    _, state = mixer(x.flatten(2))
    touched = (state.x != 0).any(-1).any(-1)[0]
    assert touched.nonzero().min() == 3
    assert touched.nonzero().max() == 5
    assert touched.sum() == 9


def test_frames_fed_back_one_by_one_leave_the_states_of_teacher_forcing() -> None:
    stack = Stack([Block(prepared(ConvS5(12, [2, 2], d_state=4))) for _ in range(2)]).double()
    x = frames(2, 5, 12)
    with torch.no_grad():
        state = stack(x)[1]
        fed, row = [], x[:, -1]
        for _ in range(4):
            row, state = stack.step(row, state)
            fed.append(row)
        whole, last = stack(torch.cat([x, x[:, -1:], *(f[:, None] for f in fed[:-1])], 1))
    assert_equal(whole[:, -4:], torch.stack(fed, 1), "what was generated", 1e-12)
    for mine, theirs in zip(state, last, strict=True):
        assert_equal(mine.x, theirs.x, "the states", 1e-12)


def test_twice_the_step_is_the_same_input_held_twice() -> None:
    """Zero-order hold is exact for an input that stands still."""
    mixer = ConvS5(12, [2, 2], d_state=4).double()
    x = tokens(mixer, 2, 6)
    _, held = mixer(x.repeat_interleave(2, 1))
    _, wide = mixer(x, dt=torch.full((2, 6), 2.0, dtype=torch.float64))
    assert_equal(wide.x, held.x, "the state", 1e-12)


def test_a_lstm_of_one_point_is_torchs_cell() -> None:
    mixer = ConvLSTM(4, [1, 1], kernel=1).double()
    cell = torch.nn.LSTM(4, 4, batch_first=True).double()
    order = torch.cat([torch.arange(k, k + 4) for k in (0, 4, 8, 12)])  # i, f, g, o in both
    with torch.no_grad():
        cell.weight_ih_l0.copy_(mixer.weight_ih[order, :, 0, 0])
        cell.weight_hh_l0.copy_(mixer.weight_hh[order, :, 0, 0])
        cell.bias_ih_l0.copy_(mixer.bias)
        cell.bias_hh_l0.zero_()
    x = tokens(mixer, 3, 7)
    y, state = mixer(x)
    expected, (h, c) = cell(x)
    assert_equal(y, expected, "outputs", 1e-12)
    assert_equal(state.c[:, 0, 0], c[0], "cells", 1e-12)
    assert_equal(state.h[:, 0, 0], h[0], "hidden", 1e-12)


def test_a_lstm_over_frames_by_hand() -> None:
    mixer = prepared(ConvLSTM(2 * 12, [3, 4], peepholes=True))
    x = frames(2, 4, 3, 4, 2)
    h = c = torch.zeros(2, 2, 3, 4, dtype=torch.float64)
    P = mixer.peepholes.movedim(-1, 1)
    for k in range(4):
        u = x[:, k].movedim(-1, 1)
        both = F.conv2d(u, mixer.weight_ih, padding=1) + F.conv2d(h, mixer.weight_hh, padding=1)
        i, f, g, o = (both + mixer.bias[:, None, None]).chunk(4, 1)
        c = torch.sigmoid(f + P[1] * c) * c + torch.sigmoid(i + P[0] * c) * torch.tanh(g)
        h = torch.sigmoid(o + P[2] * c) * torch.tanh(c)
    y, _ = run_steps(mixer, x.flatten(2))
    assert_equal(y[:, -1].view(2, 3, 4, 2).movedim(-1, 1), h, "the last output", 1e-12)


@pytest.mark.parametrize("kind", [ConvS5, ConvLSTM])
def test_frames_that_do_not_fit_are_refused_with_a_sentence(kind: type) -> None:
    with pytest.raises(ValueError, match="multiple of 6; got d_model=16"):
        kind(16, [2, 3])
    with pytest.raises(ValueError, match="rows, columns"):
        kind(16, [4])
    with pytest.raises(ValueError, match="odd number of taps"):
        kind(16, [2, 2], kernel=2)
