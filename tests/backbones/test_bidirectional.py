"""Both ends at once: the two conventions written out, packed rows, irregular time, refusals, compilation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.base import Mixer
from hippodrome.mixers.gru import GRU
from hippodrome.mixers.mamba import Mamba
from hippodrome.mixers.s4d import S4D
from hippodrome.mixers.s5 import S5
from hippodrome.ops.fft_conv_nd import fft_conv_nd
from hippodrome.testing.mixers import assert_refuses, check_noncausal, prepared

CONVENTIONS = pytest.mark.parametrize("convention", ["offset", "shared"])


def made(convention: str, kind: type[Mixer] = S4D, **options) -> Bidirectional:
    torch.manual_seed(0)
    return prepared(Bidirectional(kind(6, **options), kind(6, **options), convention))


@CONVENTIONS
@pytest.mark.parametrize("kind", [S4D, GRU, Mamba], ids=lambda kind: kind.__name__)
def test_contract(convention, kind):
    check_noncausal(Bidirectional(kind(6), kind(6), convention), 11)


@CONVENTIONS
def test_is_one_convolution_with_a_kernel_of_both_signs(convention):
    mixer = made(convention, d_state=8, gated=False)
    t = 9
    ahead, back = mixer.ahead.kernel(t), mixer.back.kernel(t)
    ahead[:, 0] += mixer.ahead.D
    back[:, 0] += mixer.back.D
    lags = torch.zeros(6, 2 * t - 1, dtype=torch.float64)
    lags[:, t - 1 :] += ahead
    if convention == "offset":
        lags[:, : t - 1] += back[:, : t - 1].flip(-1)
    else:
        lags[:, :t] += back.flip(-1)
    x = torch.randn(2, t, 6, dtype=torch.float64)
    torch.testing.assert_close(mixer(x)[0], fft_conv_nd(x, lags, [t - 1]), rtol=1e-9, atol=1e-11)


def test_a_shared_state_read_both_ways_is_two_states_read_by_two_maps():
    # S5 as published: the states of both directions side by side, one map for each, one skip.
    torch.manual_seed(0)
    mixer = prepared(Bidirectional(S5(4, d_state=4, gated=False), S5(4, d_state=4, gated=False), "shared"))
    x = torch.randn(1, 6, 4, dtype=torch.float64)
    expected = (mixer.ahead.D + mixer.back.D) * x
    for part, u, turn in ((mixer.ahead, x, False), (mixer.back, x.flip(1), True)):
        A, B, C, _ = (torch.view_as_complex(z.contiguous()) if z.dim() > 1 else z for z in part.system())
        factor = torch.exp(A * part.step_size())
        state, answers = torch.zeros(1, 2, dtype=torch.complex128), []
        for t in range(6):
            state = factor * state + ((factor - 1) / A) * (u[:, t].to(B.dtype) @ B.T)
            answers.append((state @ C.T).real)
        y = torch.stack(answers, 1)
        expected = expected + (y.flip(1) if turn else y)
    torch.testing.assert_close(mixer(x)[0], expected)


def test_shared_mirrors_and_swaps():
    mixer = made("shared")
    swapped = Bidirectional(mixer.back, mixer.ahead, "shared")
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    torch.testing.assert_close(swapped(x.flip(1))[0], mixer(x)[0].flip(1))


@CONVENTIONS
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_pieces_of_a_packed_row_know_nothing_of_each_other(convention, data):
    mixer = made(convention)
    t = data.draw(st.integers(1, 17))
    marks = sorted({0, *data.draw(st.lists(st.integers(0, t - 1), max_size=4))})
    x = torch.randn(1, t, 6, dtype=torch.float64)
    dt = 0.5 + torch.rand(1, t, dtype=torch.float64)
    resets = torch.zeros(1, t, dtype=torch.bool)
    resets[0, marks] = True
    pieces = [mixer(x[:, i:j], dt=dt[:, i:j])[0] for i, j in zip(marks, [*marks[1:], t], strict=True)]
    torch.testing.assert_close(mixer(x, resets=resets, dt=dt)[0], torch.cat(pieces, 1))


@CONVENTIONS
def test_ones_as_time_change_nothing_and_longer_gaps_do(convention):
    mixer = made(convention)
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    ones = torch.ones(2, 9, dtype=torch.float64)
    torch.testing.assert_close(mixer(x, dt=ones)[0], mixer(x)[0])
    later = ones.clone()
    later[:, 4] = 3.0
    # What stands ahead of the gap is farther from what follows it, in both directions. With "offset" the next
    # token's part in the token before the gap is k1[0], whatever lies between the two.
    changed = (mixer(x, dt=later)[0] - mixer(x)[0]).abs().amax((0, 2)) > 1e-6
    assert changed.tolist() == [convention == "shared" or i != 3 for i in range(9)]


def test_a_mixer_without_time_refuses_dt():
    assert_refuses(lambda: made("offset", GRU)(torch.zeros(1, 3, 6).double(), dt=torch.ones(1, 3)), "dt")
    assert not Bidirectional(S4D(6), GRU(6)).accepts_dt
    assert Bidirectional(S4D(6), S4D(6)).accepts_dt


def test_a_stack_of_it_is_not_causal_and_refuses_to_stream():
    stack = Stack([Block(Bidirectional.example()), Block(Bidirectional.example())])
    assert not stack.causal
    assert stack(torch.randn(2, 5, 8))[0].shape == (2, 5, 8)
    assert_refuses(lambda: stack.init_state(2), "a state of a bidirectional stack")


def test_what_cannot_be_joined_is_refused():
    with pytest.raises(ValueError, match="one width"):
        Bidirectional(S4D(6), S4D(8))
    with pytest.raises(ValueError, match="'offset' or 'shared'"):
        made("both")
    with pytest.raises(ValueError, match="both ways already"):
        Bidirectional(Bidirectional.example(), Bidirectional.example())
